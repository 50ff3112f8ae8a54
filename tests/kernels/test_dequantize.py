"""Blocks of GGUF, against the gguf package, which unpacks them with numpy."""

import gguf
import numpy as np
import pytest
from buffers import DTYPES, EPSILON, empty_buffer, from_buffer, to_buffer

from mindgen.errors import KernelError

WITH_SUMS = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
SCALES = {  # where they lie in a block
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
    "Q6_K": [208],
}  # fmt: skip


def random_blocks(name: str, count: int, seed: int = 0) -> np.ndarray:
    """(count, bytes of a block) of any bits, but with finite scales."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]), np.uint8)
    for place in SCALES[name]:
        scales = (rng.standard_normal(count) * 0.05).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("count", [1, 3, 700])
def test_equals_the_gguf_package(kernels, name, dtype, count):
    blocks, kind = random_blocks(name, count), gguf.GGMLQuantizationType[name]
    exact = gguf.quants.dequantize(blocks, kind)
    y = empty_buffer(exact.shape, dtype)
    kernels.call("dequantize", blocks, int(kind), y, DTYPES[dtype], exact.size)
    if name not in WITH_SUMS:
        np.testing.assert_array_equal(y, to_buffer(exact, dtype))
        return
    # A product and a sum are rounded once or twice.
    rounding = EPSILON[dtype] / 2 + 2 * EPSILON["float32"]
    largest = np.abs(exact).max(axis=1, keepdims=True)
    assert np.all(np.abs(from_buffer(y, dtype) - exact) <= rounding * np.abs(exact) + 4e-7 * largest)


def test_bad_arguments(kernels):
    for arguments, message in (
        ((None, 9, None, DTYPES["float32"], 32), "there is no block type 9"),
        ((None, 8, None, 4, 32), "dtype must be float32, bfloat16 or float16"),
        ((None, 8, None, DTYPES["float32"], 33), "33 elements are no whole blocks of 32"),
        ((None, 14, None, DTYPES["float32"], 32), "32 elements are no whole blocks of 256"),
        ((None, 8, None, DTYPES["float32"], 32), "x or y is NULL"),
    ):
        with pytest.raises(KernelError, match=f"^dequantize: {message}"):
            kernels.call("dequantize", *arguments)
