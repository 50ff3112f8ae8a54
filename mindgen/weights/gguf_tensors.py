"""A model's tensors as a file of GGUF has them, and in which dtype."""

import numpy as np

from mindgen.errors import CheckpointError, ModelError
from mindgen.kernels.dtypes import FLOATS
from mindgen.weights.formats.gguf_container import TENSOR_TYPES
from mindgen.weights.formats.gguf_layout import Q8_0
from mindgen.weights.gguf_names import LAYERS, ROPE_FACTORS, GgufNames, halves_of_pairs
from mindgen.weights.gguf_rope import rope_factors
from mindgen.weights.made_tensor import join_rows, order_rows
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_names import has_own_head
from mindgen.weights.tensor_names import HEAD

_DERIVED = "rotary_emb.inv_freq"
_Q8_0_BLOCK = next(kind.block for kind in TENSOR_TYPES.values() if kind.name == "Q8_0")


def gguf_tensors(names: GgufNames, config: ModelConfig, tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """The tensors of a file, given those of the network: under GGUF's names, with rows as llama.cpp has them.

    Raises:
        ModelError: there is no head, and the embedding is none.
        CheckpointError: a tensor has no place in GGUF.
    """
    head = f"{HEAD}.weight"
    if head not in tensors and not config.tie_word_embeddings:
        raise ModelError(f"the checkpoint has no {head}, and config.json does not tie the head to the embedding")
    kept = dict(tensors)
    if config.tie_word_embeddings and not has_own_head(tensors):
        kept.pop(head, None)  # without one GGUF's head is the embedding
    made: dict[str, MappedTensor] = {}
    for name, tensor in kept.items():
        if name.endswith(_DERIVED):
            continue
        own, module = _own_name(names, name)
        if module in names.fused:
            if own not in made:
                made[own] = join_rows(own, _parts(names, name, kept))
        elif module in names.permuted:
            heads = config.num_heads if names.permuted[module] == "attention.head_count" else config.num_kv_heads
            made[own] = order_rows(tensor, np.argsort(halves_of_pairs(tensor.shape[0], heads)))
        else:
            made[own] = tensor
    factors = None if config.rope is None else rope_factors(config.rope, config.head_size)
    if factors is not None:
        made[ROPE_FACTORS] = MappedTensor("float32", factors)
    return made


def gguf_dtype(names: GgufNames, name: str, tensor: MappedTensor, wanted: str | None) -> str:
    """What the tensor is to be in the file: matrices as is wanted, and what llama.cpp computes in float32 as that.

    Args:
        wanted: None leaves it as it is, and makes bfloat16 of a packed one.

    Raises:
        CheckpointError: it is none of floats.
    """
    if tensor.dtype not in FLOATS:
        raise CheckpointError(f"{name} is {tensor.dtype}, for which a model in GGUF has no place")
    module = name.rpartition(".")[0]
    if len(tensor.shape) < 2 or module in names.plain or name == ROPE_FACTORS:
        return "float32"
    if wanted == Q8_0 and tensor.shape[-1] % _Q8_0_BLOCK:
        return "float16"
    as_it_is = "bfloat16" if tensor.is_packed else tensor.dtype.replace("float64", "float32")
    return wanted or as_it_is


def _own_name(names: GgufNames, name: str) -> tuple[str, str]:
    """GGUF's name of a tensor, and of its module."""
    module, _, kind = name.rpartition(".")
    number = None
    if module.startswith(names.layers):
        number, _, module = module.removeprefix(names.layers).partition(".")
        known = {ours: theirs for theirs, ours in names.modules.items()}
        known |= {part: theirs for theirs, parts in names.fused.items() for part in parts}
    else:
        known = {ours: theirs for theirs, ours in names.tables.items()}
    if module not in known or kind not in ("weight", "bias"):
        raise CheckpointError(f"GGUF has no place for {name} in its architecture {names.architecture}")
    own = known[module]
    return (f"{own}.{kind}" if number is None else f"{LAYERS}{number}.{own}.{kind}"), own


def _parts(names: GgufNames, name: str, tensors: dict[str, MappedTensor]) -> list[MappedTensor]:
    """All that lie in GGUF where the one of that name does, in their order."""
    module, _, kind = name.rpartition(".")
    parts = next(each for each in names.fused.values() if module.endswith(tuple(f".{part}" for part in each)))
    before = next(module.removesuffix(part) for part in parts if module.endswith(f".{part}"))
    found = [f"{before}{part}.{kind}" for part in parts]
    missing = next((each for each in found if each not in tensors), None)
    if missing is not None:
        raise CheckpointError(f"there is {name}, but no {missing}")
    return [tensors[each] for each in found]
