"""Writes an adapter in PEFT's or in MindFormers' format, with what it computes unchanged."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.adapters.formats.lora_config import CONFIG_FILE
from mindgen.adapters.formats.peft import ADDED_TOKENS, MINDSPORE, SAFETENSORS, Adapter, LoraUpdate
from mindgen.adapters.loader import beyond_lora
from mindgen.errors import AdapterError
from mindgen.kernels import dtypes
from mindgen.system.atomic import whole_folder
from mindgen.system.json_file import read_json_object
from mindgen.weights.formats.mindspore_ckpt import write_mindspore_file
from mindgen.weights.formats.safetensors import write_safetensors
from mindgen.weights.lora_names import mindformers_module
from mindgen.weights.mapped_tensor import MappedTensor

_PREFIX = "base_model.model."
# What MindFormers has layers for; the names by which its S-LoRA and its fine-tuning know them.
MINDFORMERS_HALVES = {"slora": ("lora_a", "lora_b"), "mindpet": ("mindpet_delta_lora_a", "mindpet_delta_lora_b")}
_PASSED_ON = ("base_model_name_or_path", "lora_dropout", "task_type", "revision")


def convert_adapter(adapter: Adapter, target: Path, to: str, names: str = "slora") -> None:
    """Writes the adapter into the folder `target`, which must not be there yet.

    Args:
        to: peft or mindformers.
        names: of MindFormers' tensors: slora or mindpet.

    Raises:
        AdapterError: the format has no place for something in the adapter, or `target` is there already.
    """
    if target.exists():
        raise AdapterError(f"{target} is there already; name a new folder")
    config, write = _to_peft(adapter) if to == "peft" else _to_mindformers(adapter, MINDFORMERS_HALVES[names])
    file_name, tensors = write
    with whole_folder(target) as unfinished:
        (unfinished / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if to == "peft":
            write_safetensors(unfinished / file_name, tensors, {"format": "pt"})
        else:
            write_mindspore_file(unfinished / file_name, tensors)
        if adapter.added_tokens:
            shutil.copyfile(adapter.folder / ADDED_TOKENS, unfinished / ADDED_TOKENS)


def _to_peft(adapter: Adapter) -> tuple[dict[str, Any], tuple[str, dict[str, MappedTensor]]]:
    if adapter.extra_rows:
        raise AdapterError(f"{adapter.folder} has rows for new tokens, which PEFT keeps in the model; merge it instead")
    tensors: dict[str, MappedTensor] = {}
    for module, update in adapter.updates.items():
        infix, ending = ("lora_embedding_", "") if update.is_embedding else ("lora_", ".weight")
        tensors |= {f"{module}.{infix}A{ending}": update.a, f"{module}.{infix}B{ending}": update.b}
        if update.bias is not None:
            tensors[f"{module}.lora_B.bias"] = update.bias
        if update.magnitude is not None:
            tensors[f"{module}.lora_magnitude_vector"] = update.magnitude
    tensors |= adapter.saved_modules
    for name, tensor in adapter.base_weights.items():
        module, _, kind = name.rpartition(".")
        tensors[f"{module}.base_layer.{kind}" if module in adapter.updates else name] = tensor
    raw = read_json_object(adapter.folder / CONFIG_FILE, AdapterError)
    if adapter.weights_file == MINDSPORE:
        raw = (
            {key: raw[key] for key in _PASSED_ON if key in raw}
            | _peft_ranks(adapter)
            | {
                "target_modules": _target_modules(adapter.updates),
                "task_type": "CAUSAL_LM",
            }
        )
    raw |= {"peft_type": "LORA", "inference_mode": True}
    return raw, (SAFETENSORS, {_PREFIX + name: tensor for name, tensor in tensors.items()})


def _peft_ranks(adapter: Adapter) -> dict[str, Any]:
    """r, alpha and their patterns, so that every module keeps its rank and scaling."""
    config, updates = adapter.config, adapter.updates
    if all(update.rank == config.rank for update in updates.values()):
        return {"r": config.rank, "lora_alpha": config.alpha, "use_rslora": config.use_rslora}
    common = Counter(update.rank for update in updates.values()).most_common(1)[0][0]
    smaller = {module: update for module, update in updates.items() if update.rank != common}
    scaling = next(update.scaling for update in updates.values() if update.rank == common)
    return {
        "r": common,
        "lora_alpha": scaling * common,
        "rank_pattern": {module: update.rank for module, update in smaller.items()},
        "alpha_pattern": {module: update.scaling * update.rank for module, update in smaller.items()},
    }


def _to_mindformers(
    adapter: Adapter, halves: tuple[str, str]
) -> tuple[dict[str, Any], tuple[str, dict[str, MappedTensor]]]:
    config = adapter.config
    reasons = beyond_lora(adapter)
    if reasons or adapter.base_weights:
        what = " and ".join(reasons) or "brings embeddings of its own"
        raise AdapterError(f"{adapter.folder} {what}, which MindFormers has no place for; merge it instead")
    fused = [module for module in adapter.updates if mindformers_module(module) == module and module != "lm_head"]
    if fused:
        raise AdapterError(f"{adapter.folder} has LoRA on {fused[0]}, which MindFormers' Llama has no layer for")
    rank, uniform = max(update.rank for update in adapter.updates.values()), _is_uniform(adapter)
    tensors: dict[str, MappedTensor] = {}
    for module, update in adapter.updates.items():
        name = mindformers_module(module)
        b = update.b if uniform else _scaled(update)
        tensors |= {f"{name}.{halves[0]}": update.a, f"{name}.{halves[1]}": b}
    for module, rows in adapter.extra_rows.items():
        tensors[f"{mindformers_module(module)}.lora_embedding"] = rows
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    targets = [mindformers_module(module).rsplit(".", 1)[-1] for module in adapter.updates]
    raw = {
        "peft_type": "LORA",
        "r": config.rank if uniform else rank,
        "lora_alpha": alpha if uniform else rank,
        "lora_dropout": 0.0,
        "target_modules": _target_names(adapter.updates, dict(zip(adapter.updates, targets, strict=True))),
    }
    if uniform and config.use_rslora:
        raw["use_rslora"] = True
    return raw, (MINDSPORE, tensors)


def _is_uniform(adapter: Adapter) -> bool:
    """Whether MindFormers, which has one alpha and one r for all modules, gives each its scaling."""
    config = adapter.config
    if config.alpha != int(config.alpha):  # MindFormers takes integers only
        return False
    common = config.alpha / (config.rank**0.5 if config.use_rslora else config.rank)
    return all(update.scaling == common and update.rank <= config.rank for update in adapter.updates.values())


def _scaled(update: LoraUpdate) -> MappedTensor:
    """B with the scaling in it, in float32."""
    return MappedTensor("float32", dtypes.to_float32(update.b.data, update.b.dtype) * np.float32(update.scaling))


def _target_modules(updates: dict[str, LoraUpdate]) -> list[str]:
    return _target_names(updates, {module: module.rsplit(".", 1)[-1] for module in updates})


def _target_names(updates: dict[str, LoraUpdate], short_names: dict[str, str]) -> list[str]:
    """Short names where all layers have them, else full ones, so that nothing else is targeted."""
    counts = Counter(name for module, name in short_names.items() if ".layers." in module)
    most = max(counts.values(), default=0)
    partial = {name for name, count in counts.items() if count < most}
    return sorted({module if short in partial else short for module, short in short_names.items()})
