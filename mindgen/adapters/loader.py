"""Matches an adapter to a model, strictly: every tensor claims one weight, every target module names one at least."""

from dataclasses import dataclass
from pathlib import Path

from mindgen.checkpoint.peft import LoraPair, PeftAdapter, read_peft_adapter, read_peft_config
from mindgen.errors import AdapterError, CheckpointError

_MAX_NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter that fits the model: its pairs by module name, and the digest that identifies it."""

    adapter_id: str
    digest: str
    pairs: dict[str, LoraPair]

    def max_rank(self) -> int:
        return max(pair.a.shape[0] for pair in self.pairs.values())


def claimed_rank(folder: Path) -> int | None:
    """The highest rank that an adapter's configuration names, without a look at its tensors; None if it has none."""
    try:
        config = read_peft_config(folder)
    except (AdapterError, CheckpointError):
        return None
    return max([config.rank, *config.rank_pattern.values()])


def load_adapter(adapter_id: str, folder: Path, modules: dict[str, tuple[int, int]]) -> AdapterWeights:
    """The adapter in the folder, checked against the model's linears.

    Args:
        modules: (in, out) sizes of every linear of the model, by Hugging Face module name.

    Raises:
        AdapterError: the folder is incomplete, or the adapter was made for another model.
    """
    if not folder.is_dir():
        raise AdapterError(f"adapter {adapter_id}: no such folder: {folder}")
    adapter = read_peft_adapter(folder)
    _check_names(adapter_id, adapter, modules)
    for module, pair in adapter.pairs.items():
        in_features, out_features = modules[module]
        if pair.a.shape[1] != in_features or pair.b.shape[0] != out_features:
            raise AdapterError(
                f"adapter {adapter_id} ({folder}) does not fit the model: {module} maps {in_features} to "
                f"{out_features}, but its lora_A is {pair.a.shape} and its lora_B {pair.b.shape}"
            )
    return AdapterWeights(adapter_id, adapter.digest, adapter.pairs)


def _check_names(adapter_id: str, adapter: PeftAdapter, modules: dict[str, tuple[int, int]]) -> None:
    config = adapter.config
    where = f"adapter {adapter_id} ({adapter.folder})"
    if isinstance(config.target_modules, list):
        dead = [name for name in config.target_modules if not any(_is_suffix(name, module) for module in modules)]
        if dead:
            raise AdapterError(f"{where}: target_modules {dead} match no layer of the model; it has {_kinds(modules)}")
    targeted = {module for module in modules if config.targets(module)}
    if not targeted:
        raise AdapterError(
            f"{where}: target_modules {config.target_modules!r} match no layer of the model; it has {_kinds(modules)}"
        )
    unknown = sorted(set(adapter.pairs) - targeted)
    missing = sorted(targeted - set(adapter.pairs))
    if unknown or missing:
        raise AdapterError(
            f"{where}: tensors and target_modules disagree; tensors for no targeted layer of the model: "
            f"{_shorten(unknown)}; targeted layers without tensors: {_shorten(missing)}"
        )


def _is_suffix(name: str, module: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _kinds(modules: dict[str, tuple[int, int]]) -> str:
    return ", ".join(dict.fromkeys(module.rsplit(".", 1)[-1] for module in modules))


def _shorten(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) or "none"
    return shown if len(names) <= _MAX_NAMES_SHOWN else f"{shown} and {len(names) - _MAX_NAMES_SHOWN} more"
