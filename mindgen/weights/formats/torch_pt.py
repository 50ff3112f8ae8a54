"""Training checkpoints of torch (.pt, .pth): the state dict among what else was saved; nothing in them is executed."""

from pathlib import Path
from typing import Any

from mindgen.errors import CheckpointError
from mindgen.weights.formats.torch_bin import is_state_dict, read_torch_file
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import WeightFormat

_STATE_DICTS = ("model", "state_dict", "model_state_dict", "module")
# What data-parallel and compiled models put before all names.
_PREFIXES = ("module.", "_orig_mod.")


def map_torch_checkpoint(path: Path) -> dict[str, MappedTensor]:
    """The model's tensors, as views of the file.

    Raises:
        CheckpointError: the file is damaged, or has no state dict.
    """
    tensors = find_state_dict(path, read_torch_file(path))
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def find_state_dict(path: Path, content: Any) -> dict[str, MappedTensor]:
    """Raises CheckpointError where there is none."""
    if is_state_dict(content) and content:
        return dict(content)
    found = [content[key] for key in _STATE_DICTS if isinstance(content, dict) and is_state_dict(content.get(key))]
    if not found:
        has = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} has no state dict: expected tensors by name, there or under {', '.join(_STATE_DICTS)}; it has "
            f"{has}"
        )
    return dict(found[0])


FORMAT = WeightFormat(
    name="torch checkpoint",
    suffix=".pt",
    model_file="model.pt",
    index_file=None,
    preference=4,
    map=map_torch_checkpoint,
)
