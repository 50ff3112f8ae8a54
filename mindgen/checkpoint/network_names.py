"""A model's tensors under the names, and in the shapes, that its network has them."""

import re
from pathlib import Path

from mindgen.checkpoint.gpt2_weights import linear_weights
from mindgen.checkpoint.json_file import read_json_object
from mindgen.checkpoint.safetensors_map import MappedTensor
from mindgen.errors import ModelError

_LAYER = re.compile(r"(?:model\.layers|transformer\.h)\.(\d+)\.")


def network_weights(model: Path, tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """Those of Llama and its kin are the checkpoint's own.

    Raises:
        ModelError: the folder has no readable config.json.
    """
    is_gpt2 = "GPT2LMHeadModel" in (read_json_object(model / "config.json", ModelError).get("architectures") or [])
    return linear_weights(tensors) if is_gpt2 else tensors


def layer_of(name: str) -> int | None:
    """The layer that a tensor of a network belongs to; None for those before and behind the layers."""
    match = _LAYER.match(name)
    return None if match is None else int(match[1])
