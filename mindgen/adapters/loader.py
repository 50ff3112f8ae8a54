"""Matches an adapter to a model, strictly: every tensor claims one weight, every target module names one at least."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mindgen.adapters.base_mark import check_base
from mindgen.adapters.base_model import BaseModel, output_change
from mindgen.adapters.formats.lora_config import CONFIG_FILE, LoraConfig, is_suffix, parse_lora_config
from mindgen.adapters.formats.peft import Adapter, LoraPair, LoraUpdate, OutputChange, read_adapter
from mindgen.adapters.fused import split_base_weights, split_updates
from mindgen.adapters.registry import AdapterVersion
from mindgen.errors import AdapterError, CheckpointError
from mindgen.kernels import dtypes, plugin
from mindgen.kernels.library import DType
from mindgen.system.json_file import read_json_object
from mindgen.weights.architecture import architectures, architectures_of_modules
from mindgen.weights.lora_names import TensorNames, embeddings, fused_kinds, trained_name, without_prefix
from mindgen.weights.tensor_names import EMBEDDING, FUSED, HEAD

_MAX_NAMES_SHOWN = 4
_NO_MODEL = BaseModel(None, {}, "float32", False)


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter that fits the model: by module name its pairs, and what else it changes of what this process has.

    The digest identifies it.

    Attributes:
        is_sliced: whether the pairs are this rank's part already.
    """

    adapter_id: str
    folder: Path
    digest: str
    pairs: dict[str, LoraPair]
    outputs: dict[str, OutputChange] = field(default_factory=dict)
    is_sliced: bool = False

    def max_rank(self) -> int:
        return max(pair.a.shape[0] for pair in self.pairs.values())


class Claim(NamedTuple):
    """What an adapter's configuration asks room for: its highest rank, and whether embedding or head have LoRA."""

    rank: int
    has_tables: bool


def read_claim(version: AdapterVersion) -> Claim | None:
    """Without a look at the tensors; None if there is no configuration."""
    try:
        config = read_lora_config(version)
    except (AdapterError, CheckpointError):
        return None
    has_tables = any(config.targets(module) for module in (*embeddings(), without_prefix(EMBEDDING), HEAD))
    return Claim(max([config.rank, *config.rank_pattern.values()]), has_tables)


def read_lora_config(version: AdapterVersion) -> LoraConfig:
    """
    Raises:
        AdapterError: there is none, or it is malformed.
    """
    if version.content is not None:
        return version.content.config
    path = version.folder / CONFIG_FILE
    return parse_lora_config(path, read_json_object(path, AdapterError))


def load_version(
    version: AdapterVersion, modules: dict[str, tuple[int, int]], base: BaseModel, names: TensorNames
) -> AdapterWeights:
    """As `load_adapter`, of what a name stands for, in a folder or not."""
    if version.content is not None:
        return fit_adapter(version.adapter_id, version.content, modules, base)
    return load_adapter(version.adapter_id, version.folder, modules, base, names)


def load_adapter(
    adapter_id: str,
    folder: Path,
    modules: dict[str, tuple[int, int]],
    base: BaseModel = _NO_MODEL,
    names: TensorNames | None = None,
) -> AdapterWeights:
    """The adapter in the folder, as `fit_adapter` checks it.

    Args:
        names: of adapters that were read before.

    Raises:
        AdapterError: the folder is incomplete, the adapter was made for another model, or is not served.
    """
    if not folder.is_dir():
        raise AdapterError(f"adapter {adapter_id}: no such folder: {folder}")
    check_base(adapter_id, folder, base)
    return fit_adapter(adapter_id, read_adapter(folder, names), modules, base)


def fit_adapter(
    adapter_id: str, adapter: Adapter, modules: dict[str, tuple[int, int]], base: BaseModel = _NO_MODEL
) -> AdapterWeights:
    """The adapter as batches of the model have it: whether it is served is decided here, its rank aside.

    Args:
        modules: (in, out) sizes of every linear, embedding and head, by Hugging Face module name; of the embedding the
            vocabulary is `in`.

    Raises:
        AdapterError: it was made for another model, or is not served.
    """
    where = f"adapter {adapter_id} ({adapter.folder})"
    adapter = replace(adapter, base_weights=split_base_weights(where, adapter.base_weights, modules))
    reasons = unservable(adapter, base)
    if reasons:
        raise AdapterError(
            f"{where} {' and '.join(reasons)}, which is not served in a batch: merge it with `mindgen adapters merge`"
        )
    updates = match_updates(where, adapter, modules)
    biases = {name.removesuffix(".bias") for name in adapter.base_weights if name.endswith(".bias")}
    if biases - modules.keys():
        unknown = _shorten(sorted(biases - modules.keys()))
        raise AdapterError(f"{where}: it trained biases of what is no linear of the model: {unknown}")
    pairs = {module: lora_pair(where, module, update) for module, update in updates.items()}
    changed = biases | {module for module, update in updates.items() if update.magnitude or update.bias}
    outputs = {
        module: output_change(where, module, adapter, updates.get(module), base)
        for module in sorted(changed)
        if base.has(module)
    }
    return AdapterWeights(adapter_id, adapter.folder, adapter.digest, pairs, outputs)


def lora_pair(where: str, module: str, update: LoraUpdate) -> LoraPair:
    """The update in the dtype of its file, where that is one of a model; else in float32.

    Raises:
        AdapterError: it is not finite.
    """
    dtype = update.a.dtype if update.a.dtype == update.b.dtype and update.a.dtype in dtypes.STORAGE else "float32"
    pair = LoraPair(update.a.as_dtype(dtype), update.b.as_dtype(dtype), update.scaling, dtype)
    kernels = plugin.load_kernels()
    if not all(kernels.are_finite(np.ascontiguousarray(each), DType[dtype.upper()]) for each in (pair.a, pair.b)):
        raise AdapterError(f"{where}: the LoRA tensors of {module} are not finite")
    return pair


def unservable(adapter: Adapter, base: BaseModel | None = None) -> list[str]:
    """What the adapter has that a batch cannot mix, as the ends of a sentence.

    Without a model it gets the benefit of the doubt: tools save embeddings and tokens that are the model's own, too.
    """
    reasons = []
    if adapter.saved_modules:
        reasons.append(f"replaces whole modules (modules_to_save: {', '.join(adapter.config.modules_to_save)})")
    tables = {name: tensor for name, tensor in adapter.base_weights.items() if not name.endswith(".bias")}
    if base is not None and not all(base.holds(name, tensor) for name, tensor in tables.items()):
        reasons.append(f"replaces {' and '.join(tables)}")
    if adapter.extra_rows or (base is not None and not base.knows(adapter.added_tokens)):
        reasons.append("brings tokens of its own")
    return reasons


def beyond_lora(adapter: Adapter) -> list[str]:
    """What the adapter has besides A and B, as the ends of a sentence."""
    config = adapter.config
    reasons = []
    if config.use_dora:
        reasons.append("uses DoRA (use_dora: true)")
    if config.lora_bias:
        reasons.append("has a bias of its own (lora_bias: true)")
    biases = [name for name in adapter.base_weights if name.endswith(".bias")]
    if biases:
        reasons.append(f"trained biases (bias: {config.bias})")
    if adapter.saved_modules:
        reasons.append(f"replaces whole modules (modules_to_save: {', '.join(config.modules_to_save)})")
    return reasons


def match_updates(where: str, adapter: Adapter, modules: dict[str, tuple[int, int]]) -> dict[str, LoraUpdate]:
    """The adapter's updates by the model's module names.

    Raises:
        AdapterError: a target, a tensor or a size does not fit the model.
    """
    updates = split_updates(where, adapter.updates, modules)
    problems = find_misfits(adapter, updates, modules)
    if problems:
        raise AdapterError(f"{where}: {problems[0]}")
    return updates


def find_misfits(adapter: Adapter, updates: dict[str, LoraUpdate], modules: dict[str, tuple[int, int]]) -> list[str]:
    """What of the adapter's targets, updates and sizes does not fit the model; `updates` are the adapter's, split."""
    config = adapter.config
    problems = []
    if isinstance(config.target_modules, list):
        dead = [target for target in config.target_modules if not any(is_suffix(target, name) for name in modules)]
        every = {name for module in modules if dead for name in _known_names(module)}
        dead = [target for target in dead if not any(is_suffix(target, name) for name in every)]
        if dead:
            problems.append(f"target_modules {dead} match no layer of the model; it has {_kinds(modules)}")
    targeted = _targeted(adapter, updates, modules)
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


def _targeted(adapter: Adapter, updates: dict[str, LoraUpdate], modules: dict[str, tuple[int, int]]) -> set[str]:
    """The modules that the configuration asks for, as the model that the adapter was trained on calls them.

    Which of the models with such layers that was, and whether it had a head, whose absence shortens all names, only
    shows in which names fit the tensors.
    """
    config, fused = adapter.config, fused_kinds(adapter.updates)
    readings: list[set[str]] = []
    for architecture in architectures_of_modules(modules):
        names = {module: trained_name(module, fused, architecture.name) for module in modules}
        for shorten in (str, without_prefix):
            targeted = {module for module, name in names.items() if config.targets(shorten(name))}
            if config.ensure_weight_tying and targeted & {*embeddings(), HEAD}:
                targeted |= {*embeddings(), HEAD} & updates.keys()
            if targeted == updates.keys():
                return targeted
            readings.append(targeted)
    return min(readings, key=lambda targeted: len(targeted ^ updates.keys()))


def _known_names(module: str) -> set[str]:
    """Every name that any model has for a module."""
    parent, _, name = module.rpartition(".")
    known = {module, *(f"{parent}.{fused}" for fused, parts in FUSED.items() if name in parts)}
    known |= set(embeddings()) if module in embeddings() else set()
    known |= {each.their_module(name) for each in architectures().values() for name in known}
    return known | set(map(without_prefix, known))


def _kinds(modules: dict[str, tuple[int, int]]) -> str:
    return ", ".join(dict.fromkeys(module.rsplit(".", 1)[-1] for module in modules))


def _shorten(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) or "none"
    return shown if len(names) <= _MAX_NAMES_SHOWN else f"{shown} and {len(names) - _MAX_NAMES_SHOWN} more"
