"""A training checkpoint of the from-scratch GPT (a .pt of rosellm's rosetrainer) as a model's folder: its configuration
is in the file, or told, or both."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindgen.errors import ModelError, UsageError, warn
from mindgen.store.made_folder import made_folder
from mindgen.text.tokenizer_config import VOCABULARY_FILES, tokenizer_paths
from mindgen.weights.architectures.scratch_gpt import ARCHITECTURE
from mindgen.weights.formats.torch_bin import find_state_dict, read_torch_file
from mindgen.weights.formats.torch_pt import FORMAT
from mindgen.weights.network_names import are_equal

_SIZES = ("vocab_size", "max_position_embeddings", "n_layers", "n_heads", "d_model", "d_ff")
_EMBEDDING, _HEAD = "token_embedding.weight", "lm_head.weight"


def torch_folder(path: Path, told: Mapping[str, Any] | None = None, tokenizer: Path | None = None) -> Path:
    """The folder for this checkpoint, made if it is not there.

    Args:
        told: sizes by GPTConfig's names, for files without a configuration; where the file has one, it counts.
        tokenizer: the folder of the tokenizer; None takes what lies beside the file.

    Raises:
        ModelError, CheckpointError: the file is damaged, or no whole GPT.
        UsageError: neither the file nor `told` says what the sizes are.
    """
    if not path.is_file():
        raise ModelError(f"no such file: {path}")
    beside = path.parent if tokenizer is None else tokenizer
    links = {file.name: file for file in tokenizer_paths(beside)}
    if not links:
        find_state_dict(path, read_torch_file(path))  # a damaged file is worse than a missing tokenizer
        raise ModelError(f"{beside} has no tokenizer for {path.name}: expected {' or '.join(VOCABULARY_FILES)}")
    links[FORMAT.model_file] = path
    details = json.dumps(dict(told or {}))
    return made_folder("torch", path, details, links, lambda: {"config.json": _config(path, told or {})})


def _config(path: Path, told: Mapping[str, Any]) -> bytes:
    content = read_torch_file(path)
    tensors = find_state_dict(path, content)
    if _EMBEDDING not in tensors:
        raise ModelError(
            f"{path} is no checkpoint of the from-scratch GPT ({_EMBEDDING} is missing; it has {min(tensors)}): name "
            "the folder with the config.json of whatever it is"
        )
    saved = content.get("config") if isinstance(content, dict) else None
    sizes = _sizes(path, saved if isinstance(saved, dict) else {}, told)
    tied = _HEAD not in tensors or are_equal(tensors[_HEAD], tensors[_EMBEDDING])
    config = {
        "architectures": [ARCHITECTURE.name],
        "model_type": ARCHITECTURE.model_type,
        "tie_word_embeddings": tied,
        **sizes,
    }
    ARCHITECTURE.read_config(path / "config", config)  # while errors can still name the file that the user knows
    return json.dumps(config, indent=1).encode()


def _sizes(path: Path, saved: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says, and for what it does not say, what was told."""
    for name in (*_SIZES, "activation"):
        if name in saved and name in told and saved[name] != told[name]:
            warn(f"{path} says {name} {saved[name]}, and {told[name]} was told: the file counts")
    sizes = {name: saved.get(name, told.get(name)) for name in (*_SIZES, "activation")}
    missing = [name for name in _SIZES if sizes[name] is None]
    if missing:
        raise UsageError(
            f"{path} has no configuration: say {', '.join(f'--{name}' for name in missing)}, as it was trained"
        )
    return {name: size for name, size in sizes.items() if size is not None}
