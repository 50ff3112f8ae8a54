"""Adapters of fused modules (qkv_proj, gate_up_proj, W_pack), split onto the parts that a model keeps apart."""

from dataclasses import replace

from mindgen.checkpoint.lora_names import FUSED
from mindgen.checkpoint.peft import LoraUpdate
from mindgen.checkpoint.safetensors_map import MappedTensor
from mindgen.errors import AdapterError


def split_fused(
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
            result[module] = update
            continue
        outputs, total = update.b.shape[0], sum(modules[part][1] for part in parts)
        if outputs != total or set(parts) & updates.keys():
            names = ", ".join(part.rpartition(".")[2] for part in parts)
            raise AdapterError(
                f"{where}: {module} has {outputs} outputs, "
                f"but {names} of the model have {total}, or updates of their own"
            )
        start = 0
        for part in parts:
            end = start + modules[part][1]
            result[part] = replace(
                update,
                b=_rows(update.b, start, end),
                bias=update.bias and _rows(update.bias, start, end),
                magnitude=update.magnitude and _rows(update.magnitude, start, end),
            )
            start = end
    return result


def _parts(module: str, modules: dict[str, tuple[int, int]]) -> list[str]:
    """The model's modules that the fused one stands for; none if the model has it as it is, or knows neither."""
    parent, _, name = module.rpartition(".")
    parts = [f"{parent}.{part}" for part in FUSED.get(name, ())]
    return parts if module not in modules and all(part in modules for part in parts) else []


def _rows(tensor: MappedTensor, start: int, end: int) -> MappedTensor:
    return MappedTensor(tensor.dtype, tensor.data[start:end])
