"""A model in another kind of file, under other names, or in another dtype: a few rows at a time, and verified; a
conversion that was killed goes on where it was."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mindgen.errors import ModelError, UsageError
from mindgen.kernels.dtypes import FLOATS
from mindgen.store.gguf_model import gguf_model
from mindgen.store.tensor_file import Content, num_kept, verify_tensors, write_tensors
from mindgen.system.json_file import read_json_object
from mindgen.system.resumable import resumable_folder
from mindgen.weights.architecture import Architecture, architecture_of
from mindgen.weights.config_file import CONFIG_FILE
from mindgen.weights.folder import map_weights, model_folder, warn_of_two_checkpoints, weight_paths
from mindgen.weights.formats.gguf_layout import Q8_0
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.quantization import CONFIG_KEY as QUANTIZATION_KEY
from mindgen.weights.weight_format import FileLayout, WeightFormat, map_file, weight_formats

_TEXTS = ("*.json", "merges.txt", "tokenizer.model", "*.tiktoken", "*.jinja")
_NO_TEXTS = ("*.index.json", "lora_adapter.json", "config.json")
_DTYPE_OF_PACKED = "bfloat16"
_MADE_BY = "1"  # to be counted up when the same conversion gives other bytes


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is wanted.

    Attributes:
        names: huggingface or mindformers; GGUF has its own.
        suffix: of the kind of file.
        dtype: of all tensors of floats; None leaves each as it is, and makes bfloat16 of packed ones. In GGUF of the
            matrices, and q8_0 is one more.
    """

    names: str
    suffix: str
    dtype: str | None


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What is converted.

    Attributes:
        tensors: as they lie in the files.
        folder: of configuration and tokenizer; None where there are only weights.
    """

    architecture: Architecture
    tensors: dict[str, MappedTensor]
    files: tuple[Path, ...]
    folder: Path | None

    def num_layers(self) -> int:
        """How many the tensors are of."""
        names = self.architecture.with_own_names(self.tensors)
        layers = {self.architecture.layer_of(name) for name in names} - {None}
        return len(layers)


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """Attributes:
    num_kept: tensors that an earlier try, which was killed, had written already.
    """

    num_tensors: int
    num_kept: int
    num_bytes: int
    digest: str


def model_source(folder: Path) -> ModelSource:
    """Raises ModelError, CheckpointError: the folder has no model, or it is damaged."""
    warn_of_two_checkpoints(folder)
    return ModelSource(architecture_of(folder), map_weights(folder), tuple(weight_paths(folder)), folder)


def weights_source(path: Path, architecture: Architecture) -> ModelSource:
    """Of a model's folder, of one of its files, or of a file that has weights alone, with names of that architecture.

    Raises:
        ModelError: there is nothing, or the folder's model has other names.
        CheckpointError: a file is damaged.
    """
    if not path.exists():
        raise ModelError(f"no such file or folder: {path}")
    folder = path if path.is_dir() else path.parent
    if path.is_file() and not ((folder / CONFIG_FILE).is_file() and path in weight_paths(folder)):
        return ModelSource(architecture, map_file(path), (path,), None)
    source = model_source(model_folder(folder))
    if source.architecture.layers != architecture.layers:
        raise ModelError(f"{folder} is a {source.architecture.name}, whose names are not those of {architecture.name}")
    return source


def convert_model(source: ModelSource, target: Path, conversion: Conversion) -> ConversionReport:
    """Writes the new folder `target`, or only the file of that name where it has the suffix; it is there whole, or not
    at all.

    Raises:
        UsageError: what is wanted contradicts itself.
        ModelError: the target is there already, or what is wanted is not written of such a model.
        CheckpointError: the model is damaged, or what was written reads back as something else.
        OSError: the disk is full, or another process writes the same. Nothing is left then.
    """
    kind = _writable(conversion)
    is_file = target.suffix == kind.suffix
    if target.suffix in weight_formats() and not is_file:
        raise UsageError(f"{target} ends in {target.suffix}, and what is written is {kind.name} ({kind.suffix})")
    if target.exists():
        raise ModelError(f"{target} is there already; name a new {'file' if is_file else 'folder'}")
    if source.folder is None and not is_file:
        raise ModelError(f"there is no config.json for a folder: name a file, {target}{kind.suffix}")
    content, metadata = _content(source, kind, conversion)
    assert kind.layout is not None
    layout = kind.layout({name: (dtype, tensor.shape) for name, (tensor, dtype) in content.items()}, metadata)
    with resumable_folder(target, _identity(source, layout, conversion)) as (made, journal):
        if source.folder is not None and not kind.is_whole_model:
            _copy_texts(source.folder, made, conversion.dtype)
        file = made / kind.model_file
        kept = num_kept(file, layout, journal.entries)
        journal.keep(kept)
        with _naming(target):
            write_tensors(file, layout, content, journal)
        map_file(file)
        verify_tensors(file, layout, dict(journal.entries))
        size = file.stat().st_size
        os.replace(file if is_file else made, target)
    total = hashlib.sha256("".join(f"{name} {digest}" for name, digest in sorted(journal.entries)).encode())
    return ConversionReport(len(content), kept, size, total.hexdigest())


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Has an error of the system that names no file, like that of a full disk, name what was to be made."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _writable(conversion: Conversion) -> WeightFormat:
    written = {each: kind for each, kind in weight_formats().items() if kind.layout is not None}
    if conversion.suffix not in written:
        raise UsageError(f"files ending in {conversion.suffix} are not written; written are {', '.join(written)}")
    kind = written[conversion.suffix]
    if kind.is_whole_model and conversion.names != "huggingface":
        raise UsageError(f"{kind.name} has names of its own, and none of {conversion.names}")
    if conversion.dtype == Q8_0 and not kind.is_whole_model:
        raise UsageError(f"{Q8_0} is written as GGUF only, not as {kind.name}")
    return kind


def _content(source: ModelSource, kind: WeightFormat, conversion: Conversion) -> tuple[Content, Mapping[str, Any]]:
    """The tensors of the new file, and its metadata."""
    if kind.is_whole_model:
        if source.folder is None:
            raise ModelError(f"there is no config.json, which {kind.name} has inside")
        return gguf_model(source.folder, source.architecture, source.tensors, conversion.dtype)
    tensors = _with_names(source.architecture, source.tensors, conversion.names)
    content = {name: (tensor, _dtype(tensor, conversion.dtype)) for name, tensor in tensors.items()}
    return content, {} if kind.read_metadata is None else {"format": "pt"}


def _dtype(tensor: MappedTensor, wanted: str | None) -> str:
    if tensor.dtype not in FLOATS:
        return tensor.dtype
    return wanted or (_DTYPE_OF_PACKED if tensor.is_packed else tensor.dtype)


def _with_names(architecture: Architecture, tensors: dict[str, MappedTensor], names: str) -> dict[str, MappedTensor]:
    tensors = architecture.with_own_names(tensors)
    if names == "huggingface":
        return tensors
    if architecture.with_mindformers_names is None:
        raise ModelError(f"MindFormers has no names for a {architecture.name}")
    return architecture.with_mindformers_names(tensors)


def _identity(source: ModelSource, layout: FileLayout, conversion: Conversion) -> str:
    """All that the bytes of the file depend on."""
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in source.files]
    places = hashlib.sha256(layout.header)
    for place in layout.places:
        places.update(f"{place.name} {place.total_bytes}\n".encode())
    return json.dumps([_MADE_BY, asdict(conversion), files, places.hexdigest()])


def _copy_texts(folder: Path, target: Path, dtype: str | None) -> None:
    skipped = {each for pattern in _NO_TEXTS for each in folder.glob(pattern)}
    for path in sorted({each for pattern in _TEXTS for each in folder.glob(pattern)} - skipped):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    config = read_json_object(folder / "config.json", ModelError)
    config.pop(QUANTIZATION_KEY, None)  # what was packed is written unpacked
    if dtype is not None:
        config = {name: value for name, value in config.items() if name != "dtype"} | {"torch_dtype": dtype}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
