"""GGUF files, as llama.cpp writes them: mapped, under the network's names, and unpacked when they are looked at."""

import re
from functools import cache
from pathlib import Path

import numpy as np

from mindgen.errors import CheckpointError, KernelError
from mindgen.kernels import dtypes, plugin
from mindgen.kernels.library import DType
from mindgen.system.checks import shown
from mindgen.system.suggestion import nearest_first
from mindgen.weights.formats.gguf_container import TENSOR_TYPES, GgufFile, GgufTensor, read_gguf
from mindgen.weights.formats.gguf_layout import gguf_layout
from mindgen.weights.gguf_names import GgufNames, GgufSettings, halves_of_pairs
from mindgen.weights.made_tensor import cut_rows, order_rows
from mindgen.weights.mapped_tensor import MappedTensor, packed_tensor
from mindgen.weights.weight_format import WeightFormat

_PLAIN = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
}  # fmt: skip
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def gguf_files(path: Path) -> list[Path]:
    """All files of a model, given one of them: those that are split are numbered.

    Raises:
        CheckpointError: one is missing.
    """
    path = path.resolve()
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    number, count = int(match[2]), int(match[3])
    if not 1 <= number <= count:
        raise CheckpointError(
            f"{path}: a model has no file {number} of {count}: give the files the names that they had"
        )
    files = [path.with_name(f"{match[1]}-{number:05}-of-{match[3]}.gguf") for number in range(1, count + 1)]
    missing = [each.name for each in files if not each.is_file()]
    if missing:
        raise CheckpointError(f"{path.parent} has no {missing[0]}: {path.name} is one of {count} files")
    return files


def read_model(path: Path) -> GgufFile:
    """The metadata of the first file of a model, and the tensors of all.

    Raises:
        CheckpointError: a file is missing or damaged, or two hold the same tensor.
    """
    files = [read_gguf(each) for each in gguf_files(path)]
    tensors: dict[str, GgufTensor] = {}
    for each in files:
        repeated = tensors.keys() & each.tensors.keys()
        if repeated:
            raise CheckpointError(f"{path}: {min(repeated)!r} is in two of its files")
        tensors |= each.tensors
    return GgufFile(files[0].metadata, tensors)


def map_gguf(path: Path) -> dict[str, MappedTensor]:
    """The model's tensors under the network's names.

    Raises:
        CheckpointError: it is damaged, or of an architecture that is not served.
    """
    file = read_model(path)
    names = names_of(path, file)
    settings = GgufSettings(file.metadata, names.architecture)
    tensors: dict[str, MappedTensor] = {}
    for name, tensor in file.tensors.items():
        for own_name, part in _parts(name, tensor, names, settings):
            if own_name in tensors:
                raise CheckpointError(f"{path}: {own_name!r} comes twice, from {name!r} as well")
            tensors[own_name] = part
    return tensors


def names_of(path: Path, file: GgufFile) -> GgufNames:
    """Raises CheckpointError where the architecture is not served."""
    known = gguf_architectures()
    found = file.metadata.get("general.architecture")
    if not isinstance(found, str) or found not in known:
        nearest = ", ".join(nearest_first(str(found), known))
        raise CheckpointError(
            f"{path}: architecture {shown(found)} is not served; served are, the nearest first, {nearest}"
        )
    return known[found]


@cache
def gguf_architectures() -> dict[str, GgufNames]:
    """By what GGUF calls them."""
    from mindgen.weights.architecture import architectures  # whose records are read on demand, as formats are

    found = [each.gguf for each in architectures().values() if each.gguf is not None]
    return {each.architecture: each for each in found}


def _parts(name: str, tensor: GgufTensor, names: GgufNames, settings: GgufSettings) -> list[tuple[str, MappedTensor]]:
    """A tensor as the network has it: under its own name, in several parts, or with rows in another order."""
    found = names.find(name)
    if found is None:
        return []
    prefix, module, kind = found
    num_rows = tensor.shape[0]
    if module in names.fused and prefix:
        parts = names.fused[module]
        bounds = [num_rows * place // len(parts) for place in range(len(parts) + 1)]
        return [
            (f"{prefix}{part}.{kind}", cut_rows(_map(tensor), first, last))
            for part, first, last in zip(parts, bounds, bounds[1:], strict=False)
        ]
    own = (names.modules if prefix else names.tables).get(module)
    if own is None:
        return [(name, _map(tensor))]  # which nobody takes, and the loader names
    order = None
    if module in names.permuted and prefix:
        heads = settings.get(names.permuted[module], int, settings.need("attention.head_count", int))
        order = halves_of_pairs(num_rows, heads)
    return [(f"{prefix}{own}.{kind}", _map(tensor, order))]


def _map(tensor: GgufTensor, order: np.ndarray | None = None) -> MappedTensor:
    """The tensor, or those of its rows, in this order."""
    mapped = _map_whole(tensor)
    return mapped if order is None else order_rows(mapped, order)


def _map_whole(tensor: GgufTensor) -> MappedTensor:
    kind = TENSOR_TYPES[tensor.type_id]
    if kind.name in _PLAIN:
        dtype = _PLAIN[kind.name]
        storage: np.dtype = np.dtype(dtypes.FILE_STORAGE[dtype])
        values = tensor.rows.reshape(-1).view(storage.newbyteorder("<")).reshape(tensor.shape)
        return MappedTensor(dtype, values)
    if len(tensor.shape) != 2:
        raise CheckpointError(f"GGUF: a tensor {tensor.shape} of type {kind.name}: packed are matrices only")

    def unpack(first: int, last: int, target: np.ndarray, dtype: str) -> None:
        try:
            kernels = plugin.load_kernels()
            kernels.call(
                "dequantize", tensor.rows[first:last], tensor.type_id, target, DType[dtype.upper()], target.size
            )
        except KernelError as error:
            raise CheckpointError(f"GGUF: {error}") from error

    return packed_tensor(kind.name, tensor.rows, tensor.shape, unpack)


FORMAT = WeightFormat(
    name="GGUF",
    suffix=".gguf",
    model_file="model.gguf",
    index_file=None,
    preference=3,
    map=map_gguf,
    layout=gguf_layout,
    is_packed=True,
    is_whole_model=True,
)
