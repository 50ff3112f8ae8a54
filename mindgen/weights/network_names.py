"""A model's tensors under the names, and in the shapes, that its network has them."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindgen.weights.architecture import Architecture, architecture_of, architectures, read_model_config
from mindgen.weights.lora_names import embeddings, without_prefix
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.tensor_names import EMBEDDING, HEAD

_BLOCK_ELEMENTS = 1 << 20


def network_weights(model: Path, tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """As the architecture in the model's folder translates them.

    Raises:
        ModelError: the folder has no readable config.json, or it asks for what is not served.
        CheckpointError: a tensor does not fit it.
    """
    return architecture_of(model).translate(tensors, read_model_config(model))


def tied_by_embedding(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """With a tied table under the embedding's name, which some tools save under the head's alone."""
    embedding, head = f"{EMBEDDING}.weight", f"{HEAD}.weight"
    if embedding in tensors or head not in tensors:
        return tensors
    return {embedding if name == head else name: tensor for name, tensor in tensors.items()}


def linear_modules(
    shapes: Mapping[str, tuple[int, ...]], tied: bool, stored_by: Architecture | None = None
) -> dict[str, tuple[int, int]]:
    """(in, out) of every linear, embedding and head: of tables the vocabulary is `in`, as in an adapter's A.

    Args:
        shapes: of the tensors, by name.
        tied: whether the head is the embedding's where it has no tensor.
        stored_by: whose checkpoint has them so; None for the network's own shapes.
    """
    others = {name for each in architectures().values() for name in each.other_tables}
    modules = {}
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) == 2 and name not in others:
            rows, columns = shape
            module = name.removesuffix(".weight")
            by_inputs = module in embeddings() or (stored_by is not None and stored_by.is_stored_by_inputs(name))
            modules[module] = (rows, columns) if by_inputs else (columns, rows)
    embedding = next((module for module in sorted(embeddings()) if module in modules), EMBEDDING)
    if tied and embedding in modules:
        modules.setdefault(HEAD, modules[embedding][::-1])
    return modules


def has_own_head(tensors: Mapping[str, MappedTensor]) -> bool:
    """Whether a checkpoint has a head beside the embedding, and it is another one."""
    head = tensors.get(f"{HEAD}.weight")
    names = [f"{name}.weight" for each in sorted(embeddings()) for name in (each, without_prefix(each))]
    embedding = next((tensors[name] for name in names if name in tensors), None)
    return head is not None and embedding is not None and not are_equal(head, embedding)


def are_equal(one: MappedTensor, other: MappedTensor) -> bool:
    """Whether two tensors have the same shape and the same values."""
    if one.shape != other.shape:
        return False
    step = max(1, _BLOCK_ELEMENTS // max(1, math.prod(one.shape[1:])))
    blocks = (slice(first, first + step) for first in range(0, one.shape[0], step))
    dtype = one.dtype if one.dtype == other.dtype else "float32"
    for block in blocks:
        a, b = (each.rows(block.start, block.stop).as_dtype(dtype) for each in (one, other))
        if not np.array_equal(a, b):
            return False
    return True
