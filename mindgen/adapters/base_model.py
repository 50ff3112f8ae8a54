"""What adapters ask of the base model: DoRA's norms, the biases that theirs replace, what they repeat of it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindgen.adapters.formats.peft import Adapter, LoraUpdate, OutputChange
from mindgen.errors import AdapterError
from mindgen.kernels import dtypes
from mindgen.weights.folder import read_added_tokens
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.tensor_names import EMBEDDING, HEAD

_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model's folder, its tensors by name, and the dtype that the network has them in.

    Attributes:
        modules: what this process has of the network; None is all of it.
    """

    folder: Path | None
    tensors: Mapping[str, MappedTensor]
    dtype: str
    has_tied_head: bool
    modules: Collection[str] | None = None

    def has(self, module: str) -> bool:
        return self.modules is None or module in self.modules

    def knows(self, added_tokens: dict[str, int]) -> bool:
        """Whether the tokenizer has all of these already."""
        if not added_tokens:
            return True
        return self.folder is not None and added_tokens.items() <= read_added_tokens(self.folder).items()

    def get(self, name: str) -> MappedTensor | None:
        """A tied head's weight is the embedding's."""
        if self.has_tied_head and name == f"{HEAD}.weight":
            name = f"{EMBEDDING}.weight"
        return self.tensors.get(name)

    def bias(self, module: str) -> np.ndarray | None:
        """In float32, as the network's dtype has it."""
        tensor = self.get(f"{module}.bias")
        return None if tensor is None else self.rounded(tensor, 0, tensor.shape[0])

    def rounded(self, tensor: MappedTensor, first: int, last: int) -> np.ndarray:
        """The tensor's rows in float32, as the network's dtype has them."""
        return dtypes.to_float32(self._stored(tensor, first, last), self.dtype)

    def holds(self, name: str, tensor: MappedTensor) -> bool:
        """Whether the network's parameter of that name is the same as the tensor."""
        own = self.get(name)
        if own is None or own.shape != tensor.shape:
            return False
        return all(
            np.array_equal(self._stored(own, first, last), self._stored(tensor, first, last))
            for first, last in _blocks(own.shape)
        )

    def _stored(self, tensor: MappedTensor, first: int, last: int) -> np.ndarray:
        return tensor.rows(first, last).as_dtype(self.dtype)


def output_change(
    where: str, module: str, adapter: Adapter, update: LoraUpdate | None, base: BaseModel
) -> OutputChange:
    """What the adapter does to the module's outputs, LoRA aside.

    Raises:
        AdapterError: it does not fit the model, or is not finite.
    """
    scale = None
    if update is not None and update.magnitude is not None:
        scale = _dora_scale(where, module, update, base)
    trained = _trained_bias(where, module, adapter, base)
    shift = _shift(base.bias(module), trained, update, scale)
    for values in (scale, shift):
        if values is not None and not np.isfinite(values).all():
            raise AdapterError(f"{where}: the magnitude or the bias of {module} is not finite")
    return OutputChange(scale, shift)


def _dora_scale(where: str, module: str, update: LoraUpdate, base: BaseModel) -> np.ndarray:
    """Magnitude over the norm of W + scaling * B A (arXiv:2402.09353), for each output."""
    assert update.magnitude is not None
    weight = base.get(f"{module}.weight")
    left, right = update_factors(update)
    if weight is None or weight.shape != (left.shape[0], right.shape[1]):
        raise AdapterError(f"{where}: {module} uses DoRA, but the model has no weight of its shape there")
    num_outputs = update.b.shape[0]
    squares: np.ndarray = np.zeros(num_outputs, np.float64)
    for first, last in _blocks(weight.shape):
        block = base.rounded(weight, first, last) + (left[first:last] @ right) * np.float32(update.scaling)
        if update.is_embedding:  # its outputs are the columns
            squares += np.square(block, dtype=np.float64).sum(0)
        else:
            squares[first:last] = np.square(block, dtype=np.float64).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return update.magnitude.as_dtype("float32") / np.sqrt(squares).astype(np.float32)


def _trained_bias(where: str, module: str, adapter: Adapter, base: BaseModel) -> MappedTensor | None:
    """The bias that takes the place of the base's."""
    own, trained = base.get(f"{module}.bias"), adapter.base_weights.get(f"{module}.bias")
    if trained is not None and (own is None or own.shape != trained.shape):
        raise AdapterError(f"{where}: it trained {module}.bias, but the model has no bias of its shape there")
    return trained


def _shift(
    own: np.ndarray | None, trained: MappedTensor | None, update: LoraUpdate | None, scale: np.ndarray | None
) -> np.ndarray | None:
    """What is added once the outputs, the base's bias among them, have been scaled; DoRA spares the bias.

    Args:
        own: the base's bias; trained takes its place.
    """
    added = None if update is None else update.bias
    if trained is None and added is None and (scale is None or own is None):
        return None
    old = np.float32(0) if own is None else own
    new = old if trained is None else trained.as_dtype("float32")
    if update is not None and added is not None:
        new = new + added.as_dtype("float32") * np.float32(update.scaling)
    return np.asarray(new - old if scale is None else new - old * scale)


def update_factors(update: LoraUpdate) -> tuple[np.ndarray, np.ndarray]:
    """The matrices whose product updates the weight, in float32: B and A, for a table A^T and B^T."""
    a, b = (dtypes.to_float32(tensor.data, tensor.dtype) for tensor in (update.a, update.b))
    return (a.T, b.T) if update.is_embedding else (b, a)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First and last row of blocks that are small enough for the cache."""
    step = max(1, _BLOCK_ELEMENTS // int(np.prod(shape[1:])))
    for first in range(0, shape[0], step):
        yield first, min(first + step, shape[0])
