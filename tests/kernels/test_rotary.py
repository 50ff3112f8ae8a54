import numpy as np
import pytest
from buffers import DTYPES, EPSILON, SMALLEST, empty_buffer, from_buffer, random_buffer, to_buffer

from mindgen.errors import KernelError


def tables(rows, head_size, dtype, interleaved):
    """cos and sin (rows, head_size) for positions 0, 1, ..."""
    frequencies = 10000.0 ** (-np.arange(0, head_size, 2) / head_size)
    angles = np.arange(rows)[:, None] * frequencies
    angles = np.repeat(angles, 2, axis=1) if interleaved else np.concatenate([angles, angles], axis=1)
    return to_buffer(np.cos(angles), dtype), to_buffer(np.sin(angles), dtype)


def rotated(x, cos, sin, interleaved):
    """x (T, heads, D), cos and sin (T, D): the rotation, and the sum of its terms' magnitudes."""
    partner = np.empty_like(x)
    if interleaved:
        partner[..., 0::2], partner[..., 1::2] = -x[..., 1::2], x[..., 0::2]
    else:
        half = x.shape[-1] // 2
        partner[..., :half], partner[..., half:] = -x[..., half:], x[..., :half]
    cos, sin = cos[:, None], sin[:, None]
    return x * cos + partner * sin, abs(x * cos) + abs(partner * sin)


def assert_rotated(y, x, cos, sin, interleaved, dtype):
    expected, magnitude = rotated(*(from_buffer(buffer, dtype) for buffer in (x, cos, sin)), interleaved)
    bound = 2 * EPSILON["float32"] * magnitude + EPSILON[dtype] / 2 * abs(expected) + SMALLEST[dtype]
    assert (abs(from_buffer(y, dtype) - expected) <= bound).all()


def rotate(kernels, query, key, cos, sin, lengths, interleaved, dtype, outputs=None, num_tokens=None):
    tokens, query_heads, head_size = query.shape
    outputs = outputs or (empty_buffer(query.shape, dtype), empty_buffer(key.shape, dtype))
    kernels.call(
        "apply_rotary", query, key, cos, sin, lengths, *outputs, tokens if num_tokens is None else num_tokens,
        query_heads, key.shape[1], head_size, len(cos), 0 if lengths is None else len(lengths), interleaved,
        DTYPES[dtype],
    )  # fmt: skip
    return outputs


@pytest.fixture(params=[False, True], ids=["half", "interleaved"])
def interleaved(request):
    return request.param


def random_heads(dtype, tokens=11, heads=(4, 2), head_size=64):
    rng = np.random.default_rng(0)
    return [random_buffer(rng, (tokens, count, head_size), dtype) for count in heads]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_size", [2, 6, 8, 40, 64, 80, 128, 256])
def test_rows_of_cos_belong_to_tokens(kernels, head_size, dtype, interleaved):
    query, key = random_heads(dtype, head_size=head_size)
    positions = np.random.default_rng(1).integers(0, 500, len(query))
    cos, sin = (table[positions] for table in tables(500, head_size, dtype, interleaved))
    outputs = rotate(kernels, query, key, cos, sin, np.array([5, 6], np.int32), interleaved, dtype)
    for y, x in zip(outputs, (query, key), strict=True):
        assert_rotated(y, x, cos, sin, interleaved, dtype)

    in_place = query.copy(), key.copy()
    rotate(kernels, *in_place, cos, sin, None, interleaved, dtype, in_place)
    np.testing.assert_array_equal(in_place[0], outputs[0])
    np.testing.assert_array_equal(in_place[1], outputs[1])


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("lengths", [[200], [3, 0, 150, 47], [1] * 200])
def test_positions_count_from_0_in_each_prompt(kernels, lengths, num_threads, interleaved):
    kernels.num_threads = num_threads
    query, key = random_heads("bfloat16", tokens=200)
    cos, sin = tables(256, 64, "bfloat16", interleaved)
    positions = np.concatenate([np.arange(length) for length in lengths])
    outputs = rotate(kernels, query, key, cos, sin, np.array(lengths, np.int32), interleaved, "bfloat16")
    for y, x in zip(outputs, (query, key), strict=True):
        assert_rotated(y, x, cos[positions], sin[positions], interleaved, "bfloat16")


def test_no_tokens(library):
    query, key = random_heads("float32", tokens=0)
    rotate(library, query, key, *tables(8, 64, "float32", False), np.zeros(1, np.int32), False, "float32")


@pytest.mark.parametrize(
    "lengths, head_size, message",
    [
        ([5, 5], 64, "lengths sum to 10, not T, 11"),
        ([-1, 12], 64, "sequence 0 has length -1"),
        ([1, 10], 64, "sequence 1 has length 10, cos and sin have 8 rows"),
        (None, 64, "lengths is NULL"),
        ([5, 6], 7, "head size 7 is not even"),
    ],
)
def test_bad_arguments(library, lengths, head_size, message):
    query, key = random_heads("float32", head_size=head_size)
    outputs = empty_buffer(query.shape, "float32"), empty_buffer(key.shape, "float32")
    cos = np.ones((8, head_size), np.float32)
    lengths = None if lengths is None else np.array(lengths, np.int32)
    with pytest.raises(KernelError, match=message):
        rotate(library, query, key, cos, cos, lengths, False, "float32", outputs)
    assert np.isnan(outputs[0]).all() and np.isnan(outputs[1]).all()
