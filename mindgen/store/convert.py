"""A model in another kind of file, under other names, or in another dtype: a tensor at a time, and verified."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindgen.dtypes import FLOATS
from mindgen.errors import CheckpointError, ModelError
from mindgen.system.atomic import whole_folder
from mindgen.system.json_file import read_json_object
from mindgen.weights.architecture import Architecture, architecture_of
from mindgen.weights.folder import map_weights, warn_of_two_checkpoints
from mindgen.weights.mapped_tensor import MappedTensor, PackedTensor
from mindgen.weights.mindformers_names import from_mindformers, mindformers_name
from mindgen.weights.tensor_names import EMBEDDING
from mindgen.weights.weight_format import WeightFormat, map_file, weight_formats

_TEXTS = ("*.json", "merges.txt", "tokenizer.model", "*.jinja")
_NO_TEXTS = ("*.index.json", "lora_adapter.json", "config.json")
_DTYPE_OF_PACKED = "bfloat16"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is wanted.

    Attributes:
        names: huggingface or mindformers.
        suffix: of the kind of file.
        dtype: of all tensors of floats; None leaves each as it is, and makes bfloat16 of packed ones.
    """

    names: str
    suffix: str
    dtype: str | None


@dataclass(frozen=True, slots=True)
class ConversionReport:
    num_tensors: int
    num_bytes: int
    digest: str


def convert_model(folder: Path, target: Path, conversion: Conversion) -> ConversionReport:
    """Writes the model of the folder as the new folder `target`, which is there whole or not at all.

    Raises:
        ModelError: the target is there already, or its kind of file is not written, or the names are not known.
        CheckpointError: the model is damaged, or what was written reads back as something else.
    """
    if target.exists():
        raise ModelError(f"{target} is there already; name a new folder")
    kind = _writable(conversion.suffix)
    warn_of_two_checkpoints(folder)
    architecture = architecture_of(folder)
    tensors = _with_names(architecture, map_weights(folder), conversion.names)
    source = {name: _Converted(tensor, conversion.dtype) for name, tensor in tensors.items()}
    with whole_folder(target) as unfinished:
        _copy_texts(folder, unfinished, conversion.dtype)
        file = unfinished / kind.model_file
        assert kind.write is not None
        metadata = {"format": "pt"} if kind.read_metadata is not None else {}
        digests: dict[str, str] = {}
        kinds = {name: (each.dtype, each.tensor.shape) for name, each in source.items()}
        kind.write(file, kinds, _noted(source, digests), metadata)
        _verify(file, digests)
        size = file.stat().st_size
    total = hashlib.sha256("".join(f"{name} {digests[name]}" for name in sorted(digests)).encode()).hexdigest()
    return ConversionReport(len(digests), size, total)


@dataclass(frozen=True, slots=True)
class _Converted:
    """A tensor, and the dtype that it is to have."""

    tensor: MappedTensor
    wanted: str | None

    @property
    def dtype(self) -> str:
        if self.tensor.dtype not in FLOATS:
            return self.tensor.dtype
        as_it_is = _DTYPE_OF_PACKED if isinstance(self.tensor, PackedTensor) else self.tensor.dtype
        return self.wanted or as_it_is

    def make(self) -> MappedTensor:
        dtype = self.dtype
        return self.tensor if dtype == self.tensor.dtype else MappedTensor(dtype, self.tensor.as_dtype(dtype))


def _writable(suffix: str) -> WeightFormat:
    written = {each: kind for each, kind in weight_formats().items() if kind.write is not None}
    if suffix not in written:
        raise ModelError(f"files ending in {suffix} are not written; written are {', '.join(written)}")
    return written[suffix]


def _with_names(architecture: Architecture, tensors: dict[str, MappedTensor], names: str) -> dict[str, MappedTensor]:
    tensors = architecture.with_own_names(tensors)
    if architecture.embedding != EMBEDDING and f"{EMBEDDING}.weight" in tensors:
        raise ModelError(f"converting a {architecture.name} out of GGUF is not served")
    if names == "huggingface":
        return tensors
    if architecture.with_own_names is not from_mindformers:
        raise ModelError(
            f"MindFormers' names for a {architecture.name} are not written, only those for models like Llama"
        )
    return {mindformers_name(name): tensor for name, tensor in tensors.items()}


def _copy_texts(folder: Path, target: Path, dtype: str | None) -> None:
    skipped = {each for pattern in _NO_TEXTS for each in folder.glob(pattern)}
    for path in sorted({each for pattern in _TEXTS for each in folder.glob(pattern)} - skipped):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    config = read_json_object(folder / "config.json", ModelError)
    if dtype is not None:
        config = {name: value for name, value in config.items() if name != "dtype"} | {"torch_dtype": dtype}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _noted(source: dict[str, _Converted], digests: dict[str, str]) -> Iterator[tuple[str, MappedTensor]]:
    """The tensors, whose digests are noted on the way."""
    for name, each in source.items():
        tensor = each.make()
        digests[name] = _digest(tensor)
        yield name, tensor
        each.tensor.release()


def _verify(file: Path, digests: dict[str, str]) -> None:
    written = map_file(file)
    for name, digest in digests.items():
        if name not in written or _digest(written[name]) != digest:
            raise CheckpointError(f"{file}: {name} reads back as something else than was written: the disk is faulty")
        written[name].release()


def _digest(tensor: MappedTensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tensor.shape} ".encode())
    digest.update(np.ascontiguousarray(tensor.data).data)
    return digest.hexdigest()
