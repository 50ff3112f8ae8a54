"""MindSpore parameters that live in memory of ours: mapped files, or arrays that are filled in place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mindspore
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype
from mindspore.common.initializer import initializer
from mindspore.nn.utils import no_init_parameters

from mindgen.errors import ModelError
from mindgen.kernels import dtypes
from mindgen.parallel.layout import WHOLE, Shard, TensorLayout
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.tensor_check import require_tensors

MINDSPORE_DTYPES = {name: getattr(mindspore, name) for name in dtypes.STORAGE}


def as_tensor(array: np.ndarray, dtype: str) -> Tensor:
    """A Tensor on the array's own memory; the array holds the storage of dtype."""
    return Tensor.from_numpy(array.view(np_dtype.bfloat16) if dtype == "bfloat16" else array)


def empty_parameter(dtype: str, name: str) -> Parameter:
    """A parameter whose memory is given later, by `share`."""
    return Parameter(Tensor(np.zeros(1, np.float32), MINDSPORE_DTYPES[dtype]), name=name, requires_grad=False)


def filled_parameter(array: np.ndarray, dtype: str, name: str) -> Parameter:
    """A parameter that all ranks have alike; the array holds the storage of dtype."""
    return Parameter(as_tensor(array, dtype), name=name, requires_grad=False)


def split_parameter(layout: TensorLayout, dtype: str, name: str, shard: Shard) -> Parameter:
    """A parameter whose memory is given later; for MindSpore's compiler to slice, it has the whole shape till then."""
    if not shard.sliced_by_compiler:
        return empty_parameter(dtype, name)
    parameter = whole_parameter(shard.shape(layout), dtype, name)
    parameter.requires_grad = True  # MindSpore's strategy files list no others
    return parameter


def whole_parameter(shape: tuple[int, ...], dtype: str, name: str) -> Parameter:
    """A parameter for MindSpore's compiler to slice, which has no memory yet."""
    with no_init_parameters():
        return Parameter(initializer("zeros", shape, MINDSPORE_DTYPES[dtype]), name=name, requires_grad=False)


def share(parameter: Parameter, array: np.ndarray, dtype: str) -> None:
    """Puts the parameter on the array's memory, without a copy; its shape becomes the array's."""
    parameter.set_data(as_tensor(array, dtype), slice_shape=True)


@dataclass(slots=True)
class LoadedWeight:
    """Where a tensor of the checkpoint has gone.

    Attributes:
        parameters: that lie on the memory: the layer's, and those tied to it.
        memory: of the parameters, in the storage of their dtype; read-only where it is a mapped file.
        rows: this tensor's, if others lie beside it.
        layout: of the whole tensor.
    """

    parameters: list[Parameter]
    memory: np.ndarray
    rows: slice
    layout: TensorLayout

    @property
    def num_bytes(self) -> int:
        return self.memory[self.rows].nbytes

    def check(self, name: str, tensor: MappedTensor) -> None:
        """Raises ModelError unless the tensor can take its place."""
        if tensor.shape != self.layout.shape:
            raise ModelError(f"{name!r} has shape {tensor.shape}, and the model's has {self.layout.shape}")
        if tensor.dtype not in dtypes.FLOATS:
            raise ModelError(f"{name!r} is {tensor.dtype}; served are {', '.join(dtypes.FLOATS)}")


class WeightSource:
    """The tensors of a checkpoint, of which this process has its part; each is taken by exactly one layer.

    Args:
        check: called for each tensor, to raise an error where there is no use in going on.
        is_sharded: the tensors are this process's parts already.

    Attributes:
        dtype: the dtype that weights are handed out in.
        taken: where each that a layer has taken has gone.
    """

    def __init__(
        self,
        tensors: dict[str, MappedTensor],
        dtype: str,
        shard: Shard = WHOLE,
        check: Callable[[], None] | None = None,
        is_sharded: bool = False,
    ) -> None:
        self.dtype = dtype
        self._is_sharded = is_sharded
        self._tensors = dict(tensors)
        self.taken: dict[str, LoadedWeight] = {}
        self._shard = shard
        self._check = check

    def require(self, layouts: Mapping[str, TensorLayout]) -> None:
        """Looks for all that is going to be taken, before any memory is.

        Raises:
            ModelError: some are missing, of another shape, or not of floats; the message says how many, and one.
        """
        hint = " on this rank: set auto_trans_ckpt if it is sharded in another way" if self._is_sharded else ""
        shapes = {name: self._shard.shape(each) if self._is_sharded else each.shape for name, each in layouts.items()}
        require_tensors(self._tensors, shapes, hint)

    def fill(self, parameter: Parameter, name: str, layout: TensorLayout) -> None:
        """Puts the parameter on this process's part of the weight; mapped when it lies in the file just like that."""
        tensor = self._take(name)
        unpacked = tensor.unpacked(self.dtype)
        memory = self._own_part(unpacked, layout)
        if unpacked is not tensor or not np.may_share_memory(memory, tensor.data):
            tensor.release()
        share(parameter, memory, self.dtype)
        self.taken[name] = LoadedWeight([parameter], memory, slice(None), layout)

    def fill_together(self, parameter: Parameter, layouts: Mapping[str, TensorLayout]) -> None:
        """With the weights of these names, one after the other along their first axis; mapped if there is only one."""
        if len(layouts) == 1:
            return self.fill(parameter, *next(iter(layouts.items())))
        shapes = [self._shard.shape(layout) for layout in layouts.values()]
        together: np.ndarray = np.empty((sum(shape[0] for shape in shapes), *shapes[0][1:]), dtypes.STORAGE[self.dtype])
        row = 0
        for (name, layout), shape in zip(layouts.items(), shapes, strict=True):
            tensor, rows = self._take(name), slice(row, row + shape[0])
            if self._is_sharded or shape == layout.shape:
                tensor.write_to(together[rows], self.dtype)
            else:
                together[rows] = self.part_of(tensor, layout)
            tensor.release()  # or the file would be in memory a second time
            self.taken[name] = LoadedWeight([parameter], together, rows, layout)
            row += shape[0]
        share(parameter, together, self.dtype)

    def tie(self, parameter: Parameter, name: str) -> None:
        """Puts the parameter where a weight is that another layer has taken whole."""
        loaded = self.taken[name]
        share(parameter, loaded.memory, self.dtype)
        loaded.parameters.append(parameter)

    def part_of(self, tensor: MappedTensor, layout: TensorLayout) -> np.ndarray:
        """This process's part of a whole tensor in the storage of dtype; a view where it is that just like that."""
        unpacked = tensor.unpacked(self.dtype)
        return self._converted(unpacked.dtype, self._shard.cut(unpacked.data, layout))

    def _converted(self, dtype: str, part: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(MappedTensor(dtype, part).as_dtype(self.dtype))

    def _take(self, name: str) -> MappedTensor:
        if self._check is not None:
            self._check()
        return self._tensors.pop(name)

    def _own_part(self, tensor: MappedTensor, layout: TensorLayout) -> np.ndarray:
        if not self._is_sharded:
            return self.part_of(tensor, layout)
        return self._converted(tensor.dtype, tensor.data)

    def remaining(self) -> list[str]:
        """The names that no layer has taken."""
        return sorted(self._tensors)


class NotedLayouts(WeightSource):
    """Loads nothing: notes the layouts of what the layers ask for, by name."""

    def __init__(self, dtype: str, shard: Shard) -> None:
        super().__init__({}, dtype, shard)
        self.layouts: dict[str, TensorLayout] = {}

    def fill(self, parameter: Parameter, name: str, layout: TensorLayout) -> None:
        self.layouts[name] = layout

    def fill_together(self, parameter: Parameter, layouts: Mapping[str, TensorLayout]) -> None:
        for name, layout in layouts.items():
            self.fill(parameter, name, layout)

    def tie(self, parameter: Parameter, name: str) -> None:
        """There is nothing to share."""

    def require(self, layouts: Mapping[str, TensorLayout]) -> None:
        """There is nothing to look for."""
