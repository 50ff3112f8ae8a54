"""Training checkpoints of torch (.pt): the state dict among what else was saved; nothing in them is executed."""

import re
from pathlib import Path
from typing import Any

from mindgen.errors import CheckpointError
from mindgen.weights.formats.torch_bin import is_state_dict, read_torch_file
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import WeightFormat

_STATE_DICTS = ("model", "state_dict", "model_state_dict", "module")
# What data-parallel and compiled models put before all names.
_PREFIX = re.compile(r"(module\.|_orig_mod\.)*")


def map_torch_checkpoint(path: Path) -> dict[str, MappedTensor]:
    """The model's tensors, as views of the file.

    Raises:
        CheckpointError: the file is damaged, or has no state dict.
    """
    return find_state_dict(path, read_torch_file(path))


def find_state_dict(path: Path, content: Any) -> dict[str, MappedTensor]:
    """Under the model's own names; raises CheckpointError where there is none."""
    states = [content, *(content.get(key) for key in _STATE_DICTS)] if isinstance(content, dict) else []
    tensors = next((dict(state) for state in states if state and is_state_dict(state)), None)
    if tensors is None:
        has = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} has no state dict: expected tensors by name, there or under {', '.join(_STATE_DICTS)}; it has "
            f"{has}"
        )
    return {_PREFIX.sub("", name, count=1): tensor for name, tensor in tensors.items()}


FORMAT = WeightFormat(
    name="torch checkpoint",
    suffix=".pt",
    model_file="model.pt",
    index_file=None,
    preference=4,
    map=map_torch_checkpoint,
    has_any_name=True,
)
