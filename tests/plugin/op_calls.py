"""Tensors of the model dtypes, float64 references with their error bounds, and networks run in MindSpore's modes."""

from collections.abc import Sequence

import mindspore
import numpy as np
from mindspore import Tensor, nn

from mindgen.kernels import dtypes
from mindgen.layers.parameters import as_tensor

MODES = {
    "static graph": mindspore.GRAPH_MODE,
    "dynamic graph": mindspore.GRAPH_MODE,
    "pynative": mindspore.PYNATIVE_MODE,
}
# Distance between 1 and the next number.
EPSILON = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
# Distance between the smallest numbers.
SMALLEST = {"float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}


def tensor(values: np.ndarray, dtype: str) -> Tensor:
    return as_tensor(dtypes.from_float32(np.ascontiguousarray(values, np.float32), dtype), dtype)


def random_tensor(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> Tensor:
    return tensor(rng.standard_normal(shape), dtype)


def int32(*values: int) -> Tensor:
    return Tensor(np.array(values, np.int32))


def int64(*values: int) -> Tensor:
    return Tensor(np.array(values, np.int64))


def float64(x: Tensor) -> np.ndarray:
    return x.asnumpy().astype(np.float64)


def assert_close(actual: Tensor, expected: np.ndarray, computation_error: np.ndarray, dtype: str) -> None:
    """Within the error of a float32 computation and the rounding of its result to dtype."""
    assert str(actual.dtype).lower() == dtype
    assert actual.shape == expected.shape
    error = abs(float64(actual) - expected)
    bound = computation_error + EPSILON[dtype] / 2 * (abs(expected) + computation_error) + SMALLEST[dtype]
    assert (error <= bound).all(), f"off by up to {np.nanmax(error / bound):.1f} times the bound"


def run(mode: str, network: nn.Cell, *calls: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """The network's outputs for each call's inputs.

    A dynamic graph is compiled once, open in the axes where the calls differ.
    """
    mindspore.set_context(mode=MODES[mode])
    if mode == "dynamic graph":
        network.set_inputs(*(_open_where_different(versions) for versions in zip(*calls, strict=True)))
    outputs = [network(*call) for call in calls]
    if mode == "dynamic graph":
        assert len(network.compile_cache) == 1
    return outputs


def _open_where_different(versions: Sequence[Tensor]) -> Tensor:
    first = versions[0]
    shape = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*(x.shape for x in versions), strict=True)]
    return first if None not in shape else Tensor(shape=shape, dtype=first.dtype)
