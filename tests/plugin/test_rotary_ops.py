"""ApplyRotaryPosEmb in the call patterns of MindFormers' inference networks, against float64."""

import numpy as np
import pytest
from mindspore import nn
from mindspore.ops import auto_generate as gen
from op_calls import EPSILON, assert_close, float64, int32, random_tensor, run, tensor

from mindgen.layers.inference_ops import inference_ops

HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 16
MAX_LENGTH = 32
HALF, INTERLEAVED = 2, 3


class Rotary(nn.Cell):
    def __init__(self, cos_format):
        super().__init__()
        self.apply_rotary = gen.ApplyRotaryPosEmb(cos_format)

    def construct(self, query, key, query_3d, key_3d, cos, sin, lengths):
        return (
            self.apply_rotary(query, key, cos, sin, lengths),
            self.apply_rotary(query_3d, key_3d, cos, sin, lengths),
        )


def tables(cos_format, dtype):
    angles = np.outer(np.arange(MAX_LENGTH), 100.0 ** -np.linspace(0, 1, HEAD_SIZE // 2))
    angles = np.repeat(angles, 2, axis=1) if cos_format == INTERLEAVED else np.concatenate([angles, angles], axis=1)
    return tensor(np.cos(angles), dtype), tensor(np.sin(angles), dtype)


def rotated(x, cos, sin, cos_format):
    """x (T, heads*D), cos and sin (T, D): the rotation, and the sum of its terms' magnitudes."""
    shape, x = x.shape, x.reshape(len(x), -1, HEAD_SIZE)
    partner = np.empty_like(x)
    if cos_format == INTERLEAVED:
        partner[..., 0::2], partner[..., 1::2] = -x[..., 1::2], x[..., 0::2]
    else:
        partner[..., : HEAD_SIZE // 2], partner[..., HEAD_SIZE // 2 :] = np.split(x, 2, axis=-1)[::-1]
        partner[..., : HEAD_SIZE // 2] *= -1
    straight, crossed = x * cos[:, None], partner * sin[:, None]
    return (straight + crossed).reshape(shape), (abs(straight) + abs(crossed)).reshape(shape)


def assert_rotated(actual, x, cos, sin, cos_format, dtype):
    expected, magnitude = rotated(float64(x), cos, sin, cos_format)
    assert_close(actual.reshape(expected.shape), expected, 2 * EPSILON["float32"] * magnitude, dtype)


def random_heads(rng, tokens, dtype):
    """query and key as (T, heads*D), and again as (T, 1, heads*D)."""
    query, key = (random_tensor(rng, (tokens, heads * HEAD_SIZE), dtype) for heads in (HEADS, KV_HEADS))
    return query, key, *(tensor(float64(x)[:, None], dtype) for x in (query, key))


def assert_calls_rotate(calls, positions, all_outputs, full_tables, cos_format, dtype):
    cos, sin = map(float64, full_tables)
    for call, rows, outputs in zip(calls, positions, all_outputs, strict=True):
        for pair in outputs:
            for actual, x in zip(pair, call[:2], strict=True):
                assert_rotated(actual, x, cos[rows], sin[rows], cos_format, dtype)


@pytest.fixture(params=[HALF, INTERLEAVED], ids=["half", "interleaved"])
def cos_format(request):
    return request.param


def test_whole_prompts(mode, half_dtype, cos_format):
    """Full tables; positions count from 0 in each prompt."""
    rng, full = np.random.default_rng(0), tables(cos_format, half_dtype)
    batches = [(4, 2), (5, 13, 3)]
    calls = [(*random_heads(rng, sum(lengths), half_dtype), *full, int32(*lengths)) for lengths in batches]
    positions = [np.concatenate([np.arange(length) for length in lengths]) for lengths in batches]
    assert_calls_rotate(calls, positions, run(mode, Rotary(cos_format), *calls), full, cos_format, half_dtype)


def gathered_calls(rng, full, positions, dtype):
    """Rows of the tables for each token, and the sequences' lengths: here of one token each."""
    return [
        (*random_heads(rng, len(rows), dtype), *(tensor(float64(table)[rows], dtype) for table in full),
         int32(*(row + 1 for row in rows)))
        for rows in positions
    ]  # fmt: skip


def test_gathered_positions(mode, half_dtype, cos_format):
    full, positions = tables(cos_format, half_dtype), [[9, 0, 31], [3, 3, 17, 0, 8]]
    calls = gathered_calls(np.random.default_rng(0), full, positions, half_dtype)
    assert_calls_rotate(calls, positions, run(mode, Rotary(cos_format), *calls), full, cos_format, half_dtype)


class Float32Rotary(nn.Cell):
    def __init__(self):
        super().__init__()
        self.apply_rotary = inference_ops(HEADS, KV_HEADS, 1.0, "float32").apply_rotary

    def construct(self, query, key, query_3d, key_3d, cos, sin, lengths):
        return (self.apply_rotary(query, key, cos, sin, lengths),)


def test_float32_stand_in():
    full, positions = tables(HALF, "float32"), [[9, 0, 31]]
    calls = gathered_calls(np.random.default_rng(0), full, positions, "float32")
    outputs = run("static graph", Float32Rotary(), *calls)
    assert_calls_rotate(calls, positions, outputs, full, HALF, "float32")
    prompts = [(*random_heads(np.random.default_rng(1), 6, "float32"), *full, int32(4, 2))]
    outputs = run("static graph", Float32Rotary(), *prompts)
    assert_calls_rotate(prompts, [[0, 1, 2, 3, 0, 1]], outputs, full, HALF, "float32")
