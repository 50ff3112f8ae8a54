"""A model's folder as the content of one GGUF file: tensors under GGUF's names, configuration and tokenizer beside."""

from collections import Counter
from pathlib import Path
from typing import Any

from mindgen.errors import ModelError
from mindgen.system.json_file import read_json_object
from mindgen.text.gguf_vocabulary import tokenizer_metadata
from mindgen.weights.architecture import Architecture, architectures, read_model_config
from mindgen.weights.formats.gguf_layout import Q8_0
from mindgen.weights.gguf_names import GgufNames
from mindgen.weights.gguf_tensors import gguf_dtype, gguf_tensors
from mindgen.weights.mapped_tensor import MappedTensor

_QUANTIZATION_VERSION = 2
_FILE_TYPES = {"float32": 0, "float16": 1, Q8_0: 7, "bfloat16": 32}  # llama.cpp's llama_ftype


def gguf_model(
    folder: Path, architecture: Architecture, tensors: dict[str, MappedTensor], dtype: str | None
) -> tuple[dict[str, tuple[MappedTensor, str]], dict[str, Any]]:
    """The file's tensors by name, each with the dtype that it is to have there, and its metadata.

    Args:
        tensors: the folder's.
        dtype: of the matrices: one of a model, or q8_0; None leaves each as it is.

    Raises:
        ModelError, CheckpointError: GGUF has no place for something in the model.
    """
    names = _names(architecture)
    config = read_model_config(folder)
    content = {
        name: (tensor, gguf_dtype(names, name, tensor, dtype))
        for name, tensor in gguf_tensors(names, config, architecture.translate(tensors, config)).items()
    }
    matrices = Counter(kind for tensor, kind in content.values() if len(tensor.shape) > 1)
    general = {
        "architecture": names.architecture,
        "type": "model",
        **_name_of(folder),
        "file_type": _FILE_TYPES[matrices.most_common(1)[0][0] if matrices else "float32"],
        "quantization_version": _QUANTIZATION_VERSION,
    }
    metadata = {f"general.{key}": value for key, value in general.items()}
    metadata |= {f"{names.architecture}.{key}": value for key, value in names.write_config(config).items()}
    return content, metadata | tokenizer_metadata(folder, config.vocab_size, config.eos_token_ids)


def _names(architecture: Architecture) -> GgufNames:
    if architecture.gguf is None:
        known = ", ".join(each.name for each in architectures().values() if each.gguf is not None)
        raise ModelError(f"a {architecture.name} is not written as GGUF, only {known}")
    return architecture.gguf


def _name_of(folder: Path) -> dict[str, str]:
    """The name that config.json remembers, if it does."""
    name = read_json_object(folder / "config.json", ModelError).get("_name_or_path")
    return {"name": name.rstrip("/").rpartition("/")[2]} if isinstance(name, str) and name.strip("/") else {}
