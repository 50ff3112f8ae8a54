"""MindSpore parameters that live in memory of ours: mapped files, or arrays that are filled in place."""

from collections.abc import Mapping

import mindspore
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype

from mindgen import dtypes
from mindgen.checkpoint.safetensors_map import MappedTensor
from mindgen.errors import ModelError

MINDSPORE_DTYPES = {
    "float32": mindspore.float32,
    "bfloat16": mindspore.bfloat16,
    "float16": mindspore.float16,
}


def as_tensor(array: np.ndarray, dtype: str) -> Tensor:
    """A Tensor on the array's own memory; the array holds the storage of dtype."""
    return Tensor.from_numpy(array.view(np_dtype.bfloat16) if dtype == "bfloat16" else array)


def empty_parameter(dtype: str, name: str) -> Parameter:
    """A parameter whose memory is given later, by `share`."""
    return Parameter(Tensor(np.zeros(1, np.float32), MINDSPORE_DTYPES[dtype]), name=name, requires_grad=False)


def share(parameter: Parameter, array: np.ndarray, dtype: str) -> None:
    """Puts the parameter on the array's memory, without a copy; its shape becomes the array's."""
    parameter.set_data(as_tensor(array, dtype), slice_shape=True)


def zeros_parameter(shape: tuple[int, ...], dtype: str, name: str) -> tuple[Parameter, np.ndarray]:
    """A parameter of zeros and the array it lives in, through which it can be written."""
    array: np.ndarray = np.zeros(shape, dtypes.STORAGE[dtype])
    parameter = empty_parameter(dtype, name)
    share(parameter, array, dtype)
    return parameter, array


class WeightSource:
    """The tensors of a checkpoint; each is taken by exactly one layer.

    Attributes:
        dtype: the dtype that weights are handed out in.
    """

    def __init__(self, tensors: dict[str, MappedTensor], dtype: str) -> None:
        self.dtype = dtype
        self._tensors = dict(tensors)

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The weight of that name in the storage of dtype, mapped when the file has it so.

        Raises:
            ModelError: it is missing, already taken, or of another shape.
        """
        tensor = self._tensors.pop(name, None)
        if tensor is None:
            raise ModelError(f"the checkpoint has no tensor {name!r}")
        if tensor.shape != shape:
            raise ModelError(f"the checkpoint's {name!r} has shape {tensor.shape}, config.json asks for {shape}")
        weight = tensor.as_dtype(self.dtype)
        if not weight.flags.c_contiguous:
            weight = np.ascontiguousarray(weight)
        if weight is not tensor.data:
            tensor.release()
        return weight

    def take_together(self, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
        """The weights of these names, one after the other along their first axis; mapped if there is only one.

        Raises:
            ModelError: as of `take`.
        """
        if len(shapes) == 1:
            return self.take(*next(iter(shapes.items())))
        first = next(iter(shapes.values()))
        together: np.ndarray = np.empty(
            (sum(shape[0] for shape in shapes.values()), *first[1:]), dtypes.STORAGE[self.dtype]
        )
        row = 0
        for name, shape in shapes.items():
            tensor = self._tensors.get(name)
            together[row : row + shape[0]] = self.take(name, shape)
            if tensor is not None:
                tensor.release()  # or the file would be in memory a second time
            row += shape[0]
        return together

    def remaining(self) -> list[str]:
        """The names that no layer has taken."""
        return sorted(self._tensors)
