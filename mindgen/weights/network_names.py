"""A model's tensors under the names, and in the shapes, that its network has them."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindgen.weights.config_file import read_names
from mindgen.weights.formats.safetensors_map import MappedTensor
from mindgen.weights.gpt2_weights import POSITIONS, PREFIX, is_conv1d, linear_weights
from mindgen.weights.lora_names import EMBEDDING, EMBEDDINGS, HEAD

_LAYER = re.compile(r"(?:model\.layers|transformer\.h)\.(\d+)\.")
_EMBEDDINGS = (f"{EMBEDDING}.weight", f"{PREFIX}wte.weight", "wte.weight")
_BLOCK_ELEMENTS = 1 << 20


def network_weights(model: Path, tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """Those of Llama and its kin are the checkpoint's own.

    Raises:
        ModelError: the folder has no readable config.json.
    """
    return linear_weights(tensors) if read_names(model).is_gpt2 else tensors


def linear_modules(
    shapes: Mapping[str, tuple[int, ...]], tied: bool, is_stored_by_inputs: bool = False
) -> dict[str, tuple[int, int]]:
    """(in, out) of every linear, embedding and head: of tables the vocabulary is `in`, as in an adapter's A.

    Args:
        shapes: of the tensors, by name.
        tied: whether the head is the embedding's where it has no tensor.
        is_stored_by_inputs: whether linears of GPT-2 are (in, out), as in its checkpoints.
    """
    modules = {}
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) == 2 and name != POSITIONS:
            rows, columns = shape
            module = name.removesuffix(".weight")
            by_inputs = module in EMBEDDINGS or (is_stored_by_inputs and is_conv1d(name))
            modules[module] = (rows, columns) if by_inputs else (columns, rows)
    embedding = next((module for module in EMBEDDINGS if module in modules), EMBEDDING)
    if tied and embedding in modules:
        modules.setdefault(HEAD, modules[embedding][::-1])
    return modules


def layer_of(name: str) -> int | None:
    """The layer that a tensor of a network belongs to; None for those before and behind the layers."""
    match = _LAYER.match(name)
    return None if match is None else int(match[1])


def has_own_head(tensors: Mapping[str, MappedTensor]) -> bool:
    """Whether a checkpoint has a head beside the embedding, and it is another one."""
    head = tensors.get(f"{HEAD}.weight")
    embedding = next((tensors[name] for name in _EMBEDDINGS if name in tensors), None)
    return head is not None and embedding is not None and not are_equal(head, embedding)


def are_equal(one: MappedTensor, other: MappedTensor) -> bool:
    """Whether two tensors have the same shape and the same values."""
    if one.shape != other.shape:
        return False
    step = max(1, _BLOCK_ELEMENTS // max(1, math.prod(one.shape[1:])))
    blocks = (slice(first, first + step) for first in range(0, one.shape[0], step))
    dtype = one.dtype if one.dtype == other.dtype else "float32"
    for block in blocks:
        a, b = (MappedTensor(each.dtype, each.data[block]).as_dtype(dtype) for each in (one, other))
        if not np.array_equal(a, b):
            return False
    return True
