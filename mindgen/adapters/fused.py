"""Adapters under the names of a model's modules: those of fused modules (qkv_proj, gate_up_proj, W_pack, c_attn) split
onto the parts that the model keeps apart, and those of an embedding that checkpoints call otherwise."""

from dataclasses import replace

from mindgen.adapters.formats.peft import LoraUpdate
from mindgen.errors import AdapterError
from mindgen.weights.lora_names import embeddings
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.tensor_names import EMBEDDING, FUSED


def split_updates(
    where: str, updates: dict[str, LoraUpdate], modules: dict[str, tuple[int, int]]
) -> dict[str, LoraUpdate]:
    """The updates, those of a fused module as one for each of its parts: A is theirs together, B is cut by outputs.

    Args:
        where: what an error begins with.
        modules: (in, out) sizes of the model's linears.

    Raises:
        AdapterError: the parts' sizes do not make up the fused module's, or a part has an update of its own.
    """
    result: dict[str, LoraUpdate] = {}
    for module, update in updates.items():
        parts = _parts(module, modules)
        if not parts:
            result[_own_name(module, modules)] = update
            continue
        _check_sizes(where, module, update.b.shape[0], parts, set(updates))
        start = 0
        for part, size in parts.items():
            end = start + size
            result[part] = replace(
                update,
                b=_rows(update.b, start, end),
                bias=update.bias and _rows(update.bias, start, end),
                magnitude=update.magnitude and _rows(update.magnitude, start, end),
            )
            start = end
    return result


def split_base_weights(
    where: str, weights: dict[str, MappedTensor], modules: dict[str, tuple[int, int]]
) -> dict[str, MappedTensor]:
    """The parameters that an adapter trained, the bias of a fused module as one for each of its parts.

    Raises:
        AdapterError: as of `split_updates`.
    """
    result: dict[str, MappedTensor] = {}
    for name, tensor in weights.items():
        module, _, kind = name.rpartition(".")
        parts = _parts(module, modules) if kind == "bias" else {}
        if not parts:
            result[f"{_own_name(module, modules)}.{kind}"] = tensor
            continue
        trained = {other.removesuffix(".bias") for other in weights}
        _check_sizes(where, module, tensor.data.size, parts, trained)
        start = 0
        for part, size in parts.items():
            end = start + size
            result[f"{part}.bias"] = _rows(tensor, start, end)
            start = end
    return result


def _parts(module: str, modules: dict[str, tuple[int, int]]) -> dict[str, int]:
    """The model's modules that the fused one stands for, with the number of their outputs; none if the model has it as
    it is, or knows neither."""
    parent, _, name = module.rpartition(".")
    parts = [f"{parent}.{part}" for part in FUSED.get(name, ())]
    if module in modules or not all(part in modules for part in parts):
        return {}
    return {part: modules[part][1] for part in parts}


def _own_name(module: str, modules: dict[str, tuple[int, int]]) -> str:
    return EMBEDDING if module in embeddings() and module not in modules else module


def _check_sizes(where: str, module: str, outputs: int, parts: dict[str, int], others: set[str]) -> None:
    total = sum(parts.values())
    if outputs != total or parts.keys() & others:
        names = ", ".join(part.rpartition(".")[2] for part in parts)
        raise AdapterError(
            f"{where}: {module} has {outputs} outputs, but {names} of the model have {total}, or updates of their own"
        )


def _rows(tensor: MappedTensor, start: int, end: int) -> MappedTensor:
    return MappedTensor(tensor.dtype, tensor.data[start:end])
