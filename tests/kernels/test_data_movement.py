import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.errors import KernelError
from mindgen.kernels.library import DType

INDEX_DTYPES = {"int32": DType.INT32, "int64": DType.INT64}


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request, library):
    before, library.num_threads = library.num_threads, request.param
    yield library
    library.num_threads = before


def gather(kernels, x, indices, index_dtype):
    """x (outer, size, inner) bytes."""
    outer, size, inner = x.shape
    y = np.full((outer, len(indices), inner), 255, np.uint8)
    indices = np.array(indices, index_dtype)
    kernels.call("gather", x, indices, INDEX_DTYPES[index_dtype], y, outer, size, len(indices), inner)
    return y


def random_bytes(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 64), (3, 7, 2), (2, 1000, 2048)])
def test_gather(threads, shape, index_dtype):
    x = random_bytes(*shape)
    indices = np.random.default_rng(1).integers(-shape[1], shape[1], 300)
    np.testing.assert_array_equal(gather(threads, x, indices, index_dtype), x[:, indices])


def test_gather_nothing(library):
    assert gather(library, random_bytes(2, 5, 4), [], "int32").size == 0
    assert gather(library, random_bytes(0, 5, 4), [1], "int32").size == 0


@pytest.mark.parametrize("index", [5, -6, 2**31 - 1])
def test_gather_outside(library, index):
    x, y = random_bytes(1, 5, 4), np.full((1, 2, 4), 255, np.uint8)
    with pytest.raises(KernelError, match=f"index {index} is outside an axis of 5"):
        library.call("gather", x, np.array([0, index]), DType.INT64, y, 1, 5, 2, 4)
    assert (y == 255).all()


@pytest.mark.parametrize("id_dtype", INDEX_DTYPES)
@pytest.mark.parametrize(("size", "inner", "first_id"), [(1, 1, 0), (50, 64, 0), (50, 64, 50), (1000, 2048, 7)])
def test_embedding_lookup(threads, size, inner, first_id, id_dtype):
    """Ids of other parts of the vocabulary give zeros."""
    table = random_bytes(size, inner)
    ids = np.random.default_rng(1).integers(0, 2 * size + first_id, 300).astype(id_dtype)
    y = np.full((300, inner), 255, np.uint8)
    threads.call("embedding_lookup", table, ids, INDEX_DTYPES[id_dtype], y, size, 300, inner, first_id)
    here = (ids >= first_id) & (ids < first_id + size)
    expected = np.where(here[:, None], table[np.where(here, ids - first_id, 0)], 0)
    np.testing.assert_array_equal(y, expected)


def test_bad_embedding_lookup_arguments(library):
    table, y, ids = random_bytes(5, 4), np.full(4, 255, np.uint8), np.zeros(1, np.int64)
    for arguments, message in [
        ((table, ids, DType.FLOAT32, y, 5, 1, 4, 0), "ids must be int32 or int64"),
        ((table, ids, DType.INT64, y, -5, 1, 4, 0), "size -5"),
        ((table, None, DType.INT64, y, 5, 1, 4, 0), "NULL"),
        ((None, ids, DType.INT64, y, 5, 1, 4, 0), "NULL"),
    ]:
        with pytest.raises(KernelError, match=message):
            library.call("embedding_lookup", *arguments)
    assert (y == 255).all()


def test_bad_gather_arguments(library):
    x, y, indices = random_bytes(1, 5, 4), np.full(4, 255, np.uint8), np.zeros(1, np.int64)
    for arguments, message in [
        ((x, indices, DType.FLOAT32, y, 1, 5, 1, 4), "indices must be int32 or int64"),
        ((x, indices, DType.INT64, y, 1, -5, 1, 4), "size -5"),
        ((x, None, DType.INT64, y, 1, 5, 1, 4), "NULL"),
    ]:
        with pytest.raises(KernelError, match=message):
            library.call("gather", *arguments)
    assert (y == 255).all()


def addresses(arrays):
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_concat_and_split(library, outer, inner):
    check_concat_and_split(library, outer, inner)


def test_large_concat_and_split(threads):
    check_concat_and_split(threads, 300, [4096, 1, 1000])


def check_concat_and_split(kernels, outer, inner):
    whole = random_bytes(outer, sum(inner))
    parts = [np.ascontiguousarray(part) for part in np.split(whole, np.cumsum(inner)[:-1], axis=1)]
    inner = np.array(inner, np.int64)
    y = np.full_like(whole, 255)
    kernels.call("concat", addresses(parts), inner, len(parts), y, outer)
    np.testing.assert_array_equal(y, whole)

    copies = [np.full_like(part, 255) for part in parts]
    kernels.call("split", whole, addresses(copies), inner, len(copies), outer)
    for copy, part in zip(copies, parts, strict=True):
        np.testing.assert_array_equal(copy, part)


def test_bad_concat_and_split_arguments(library):
    part, whole = random_bytes(2, 4), np.full((2, 4), 255, np.uint8)
    for parts, inner, count, outer, message in [
        ([part], [4], 0, 2, "0 parts"),
        ([part], [4], 1, -1, "-1 rows"),
        ([part], [-4], 1, 2, "part 0 has -4 bytes"),
    ]:
        with pytest.raises(KernelError, match=f"concat: .*{message}"):
            library.call("concat", addresses(parts), np.array(inner), count, whole, outer)
        with pytest.raises(KernelError, match=f"split: .*{message}"):
            library.call("split", part, addresses([whole]), np.array(inner), count, outer)
    with pytest.raises(KernelError, match="a buffer is NULL"):
        library.call("concat", (ctypes.c_void_p * 1)(None), np.array([4]), 1, whole, 2)
    assert (whole == 255).all()


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_001])
def test_copy(threads, size):
    x, y = random_bytes(size), np.full(size, 255, np.uint8)
    threads.call("copy", x, y, size)
    np.testing.assert_array_equal(x, y)


def test_bad_copy_arguments(library):
    x = random_bytes(4)
    with pytest.raises(KernelError, match="-1 bytes"):
        library.call("copy", x, x, -1)
    with pytest.raises(KernelError, match="NULL"):
        library.call("copy", x, None, 4)


COPY = np.dtype([("x", np.uintp), ("y", np.uintp), ("bytes", np.int64)])  # mg_copy_call


@pytest.mark.parametrize("sizes", [[], [0], [1, 70000, 3, 2_000_000]])
def test_copies_and_zeros_in_one_call(threads, sizes):
    sources = [random_bytes(size) for size in sizes]
    targets = [np.full(size, 7, np.uint8) for size in sizes]
    calls = [
        (source.ctypes.data if place % 2 == 0 else 0, target.ctypes.data, target.nbytes)
        for place, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]
    threads.call("copy_all", np.array(calls, COPY), len(calls))
    for place, (source, target) in enumerate(zip(sources, targets, strict=True)):
        np.testing.assert_array_equal(target, source if place % 2 == 0 else 0)


def test_copies_to_nowhere(library):
    with pytest.raises(KernelError, match="copy 0 has 4 bytes, or y is NULL"):
        library.call("copy_all", np.array([(0, 0, 4)], COPY), 1)


@pytest.mark.parametrize("size", [0, 1, 63, 300_000, 3_000_001])
def test_compare(threads, size):
    x = random_bytes(size)
    assert threads.are_same(x, x.copy())
    for place in {0, size // 2, size - 1} if size else ():
        y = x.copy()
        y[place] ^= 1
        assert not threads.are_same(x, y)


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.BFLOAT16, DType.FLOAT16])
@pytest.mark.parametrize("size", [0, 1, 33, 1_000_003])
def test_are_finite(threads, dtype, size):
    """Infinity, and what has its exponent, whatever the sign; all else is finite."""
    storage, mantissa_bits = {"FLOAT32": (np.uint32, 23), "BFLOAT16": (np.uint16, 7), "FLOAT16": (np.uint16, 10)}[
        dtype.name
    ]
    sign = 1 << (np.dtype(storage).itemsize * 8 - 1)
    infinity = (sign - 1) >> mantissa_bits << mantissa_bits
    bits = np.random.default_rng(0).integers(0, infinity, size).astype(storage)
    bits[::2] |= storage(sign)
    assert threads.are_finite(bits, dtype)
    copied = np.zeros_like(bits)
    assert threads.copy_finite(bits, copied, dtype) and np.array_equal(copied, bits)
    for place in {0, size // 2, size - 1} if size else ():
        for value in (infinity, infinity | sign, infinity + 1, sign - 1):
            bad = bits.copy()
            bad[place] = value
            assert not threads.are_finite(bad, dtype)
            assert not threads.copy_finite(bad, copied, dtype) and np.array_equal(copied, bad)


def test_are_finite_refuses_other_types(library):
    with pytest.raises(KernelError, match="is no type of floats"):
        library.are_finite(np.zeros(4, np.int32), DType.INT32)
