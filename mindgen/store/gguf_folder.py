"""A GGUF file as a Hugging Face folder in mindgen's cache: files of what its metadata says, and a link to it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError, ModelError
from mindgen.store.made_folder import made_folder
from mindgen.text.gguf_tokenizer import tokenizer_files
from mindgen.weights.architecture import Architecture, architectures
from mindgen.weights.formats.gguf import FORMAT, gguf_files, names_of, read_model
from mindgen.weights.formats.gguf_container import TENSOR_TYPES, GgufFile
from mindgen.weights.gguf_metadata import typed_value
from mindgen.weights.gguf_names import GgufNames, GgufSettings
from mindgen.weights.gguf_rope import scaling_of_factors

_MADE_BY = "2"  # to be counted up when the files that are made of the same metadata become others
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_PACKED_DTYPE = "bfloat16"


def gguf_folder(path: Path) -> Path:
    """The folder for this file, made if it is not there.

    Raises:
        ModelError, CheckpointError: the file is damaged, or of a kind that is not served; or there is no room.
    """
    first = gguf_files(path)[0]
    links = {FORMAT.model_file: first}
    return made_folder("gguf", first, _MADE_BY, links, lambda: _files_of(path, read_model(path)))


def _files_of(path: Path, file: GgufFile) -> dict[str, bytes]:
    names = names_of(path, file)
    architecture = next(each for each in architectures().values() if each.gguf is names)  # llama is Mistral's as well
    try:
        config, generation = _config(file, architecture, names)
        texts = {"config.json": config, "generation_config.json": generation}
        return {name: json.dumps(each, indent=1).encode() for name, each in texts.items()} | tokenizer_files(
            file.metadata
        )
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _config(file: GgufFile, architecture: Architecture, names: GgufNames) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and generation_config.json."""
    settings = GgufSettings(file.metadata, names.architecture)
    config = {
        "architectures": [architecture.name],
        "model_type": architecture.model_type,
        "torch_dtype": _dtype(file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **names.read_config(settings, file.tensors.keys()),
    }
    name = typed_value(file.metadata, "general.name", str)
    if name is not None:
        config["_name_or_path"] = name
    if "token_embd.weight" not in file.tensors:
        raise CheckpointError("GGUF: the file has no token_embd.weight")
    config["vocab_size"] = file.tensors["token_embd.weight"].shape[0]
    factors = file.tensors.get("rope_freqs.weight")
    if factors is not None:
        if TENSOR_TYPES[factors.type_id].name != "F32":
            raise CheckpointError("GGUF: rope_freqs.weight must be F32")
        values = factors.rows.reshape(-1).view(np.float32)
        if np.any(values != 1):
            config["rope_scaling"] = scaling_of_factors(values, config.get("rope_theta", 0.0))
    bos, eos, eot, eom, pad = (
        typed_value(file.metadata, f"tokenizer.ggml.{name}_token_id", int)
        for name in ("bos", "eos", "eot", "eom", "padding")
    )
    ends = list(dict.fromkeys(end for end in (eos, eot, eom) if end is not None))
    generation = {"bos_token_id": bos, "eos_token_id": ends, "pad_token_id": pad}
    generation = {name: value for name, value in generation.items() if value is not None}
    return config | generation, generation


def _dtype(file: GgufFile) -> str:
    """That of most matrices; packed ones are unpacked into one of the same range."""
    types = Counter(TENSOR_TYPES[each.type_id].name for each in file.tensors.values() if len(each.shape) > 1)
    most = types.most_common(1)[0][0] if types else "F32"
    return _PLAIN.get(most, _PACKED_DTYPE)
