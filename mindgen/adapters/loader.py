"""Matches an adapter to a model, strictly: every tensor claims one weight, every target module names one at least."""

from dataclasses import dataclass
from pathlib import Path

from mindgen.adapters.fused import split_fused
from mindgen.checkpoint.json_file import read_json_object
from mindgen.checkpoint.lora_config import CONFIG_FILE, is_suffix, parse_lora_config
from mindgen.checkpoint.lora_names import OUTPUT_MODULES, aliases
from mindgen.checkpoint.peft import Adapter, LoraPair, LoraUpdate, lora_pair, read_adapter
from mindgen.errors import AdapterError, CheckpointError

_MAX_NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter that fits the model: its pairs by module name, and the digest that identifies it."""

    adapter_id: str
    folder: Path
    digest: str
    pairs: dict[str, LoraPair]

    def max_rank(self) -> int:
        return max(pair.a.shape[0] for pair in self.pairs.values())


def claimed_rank(folder: Path) -> int | None:
    """The highest rank that an adapter's configuration names, without a look at its tensors; None if it has none."""
    try:
        config = parse_lora_config(folder / CONFIG_FILE, read_json_object(folder / CONFIG_FILE, AdapterError))
    except (AdapterError, CheckpointError):
        return None
    return max([config.rank, *config.rank_pattern.values()])


def load_adapter(adapter_id: str, folder: Path, modules: dict[str, tuple[int, int]]) -> AdapterWeights:
    """The adapter in the folder, checked against the model's linears.

    Args:
        modules: (in, out) sizes of every linear of the model, by Hugging Face module name.

    Raises:
        AdapterError: the folder is incomplete, the adapter was made for another model, or is not served.
    """
    if not folder.is_dir():
        raise AdapterError(f"adapter {adapter_id}: no such folder: {folder}")
    adapter = read_adapter(folder)
    reasons = unservable(adapter)
    if reasons:
        raise AdapterError(
            f"adapter {adapter_id} ({folder}) {' and '.join(reasons)}, which is not served in a batch: "
            "merge it with `mindgen adapters merge`"
        )
    where = f"adapter {adapter_id} ({folder})"
    updates = match_updates(where, adapter, modules)
    pairs = {module: lora_pair(where, module, update) for module, update in updates.items()}
    return AdapterWeights(adapter_id, folder, adapter.digest, pairs)


def unservable(adapter: Adapter) -> list[str]:
    """What the adapter has that a batch cannot mix, as the ends of a sentence; empty if it can be served."""
    config = adapter.config
    reasons = []
    if config.use_dora:
        reasons.append("uses DoRA (use_dora: true)")
    if config.lora_bias:
        reasons.append("has a bias of its own (lora_bias: true)")
    biases = [name for name in adapter.base_weights if name.endswith(".bias")]
    if biases:
        reasons.append(f"trained biases (bias: {config.bias})")
    outputs = [name for name in OUTPUT_MODULES if any(is_suffix(name, module) for module in adapter.updates)]
    if outputs:
        reasons.append(f"has LoRA on {' and '.join(outputs)}")
    if adapter.saved_modules:
        reasons.append(f"replaces whole modules (modules_to_save: {', '.join(config.modules_to_save)})")
    if len(adapter.base_weights) > len(biases) or adapter.extra_rows or adapter.added_tokens:
        reasons.append("brings embeddings or tokens of its own")
    return reasons


def match_updates(where: str, adapter: Adapter, modules: dict[str, tuple[int, int]]) -> dict[str, LoraUpdate]:
    """The adapter's updates by the model's module names.

    Raises:
        AdapterError: a target, a tensor or a size does not fit the model.
    """
    updates = split_fused(where, adapter.updates, modules)
    problems = find_misfits(adapter, updates, modules)
    if problems:
        raise AdapterError(f"{where}: {problems[0]}")
    return updates


def find_misfits(adapter: Adapter, updates: dict[str, LoraUpdate], modules: dict[str, tuple[int, int]]) -> list[str]:
    """What of the adapter's targets, updates and sizes does not fit the model; `updates` are the adapter's, split."""
    config = adapter.config
    names = {module: aliases(module) for module in modules}
    problems = []
    if isinstance(config.target_modules, list):
        every = [alias for known in names.values() for alias in known]
        dead = [name for name in config.target_modules if not any(is_suffix(name, alias) for alias in every)]
        if dead:
            problems.append(f"target_modules {dead} match no layer of the model; it has {_kinds(modules)}")
    targeted = {module for module, known in names.items() if config.targets(known)}
    if not targeted:
        problems.append(
            f"target_modules {config.target_modules!r} match no layer of the model; it has {_kinds(modules)}"
        )
    unknown, missing = sorted(set(updates) - targeted), sorted(targeted - set(updates))
    if unknown or missing:
        problems.append(
            f"tensors and target_modules disagree; tensors for no targeted layer of the model: "
            f"{_shorten(unknown)}; targeted layers without tensors: {_shorten(missing)}"
        )
    for module, update in updates.items():
        sizes = (update.a.shape[1], update.b.shape[0])
        if module in modules and modules[module] != sizes:
            problems.append(
                f"it does not fit the model: {module} maps {modules[module][0]} to {modules[module][1]}, "
                f"but its lora_A is {update.a.shape} and its lora_B {update.b.shape}"
            )
    return problems


def _kinds(modules: dict[str, tuple[int, int]]) -> str:
    return ", ".join(dict.fromkeys(module.rsplit(".", 1)[-1] for module in modules))


def _shorten(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) or "none"
    return shown if len(names) <= _MAX_NAMES_SHOWN else f"{shown} and {len(names) - _MAX_NAMES_SHOWN} more"
