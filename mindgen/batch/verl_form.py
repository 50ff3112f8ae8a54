"""A job in veRL's keys as one in our own."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mindgen.batch.job_keys import Said
from mindgen.batch.verl_keys import GENERATION_DEFAULTS, SERVER_DEFAULTS, VERL_KEYS, VerlKey
from mindgen.compat.option_aliases import LENGTH_OPTIONS
from mindgen.errors import ConfigError

_ROWS = {row.name: row for row in VERL_KEYS}
_SERVER_KEYS = ("data.train_files", "actor_rollout_ref.rollout.", "actor_rollout_ref.model.")
# Whoever uses one of these sections expects veRL's defaults.
_SECTIONS = ("trainer.", "data.", "rollout.", "actor_rollout_ref.")
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "count": (int, "an integer of at least 1"),
    "integer": (int, "an integer"),
    "number": ((int, float), "a number"),
    "number or size": ((int, float, str), "a number, or a size like 4GiB"),
    "truth": (bool, "True or False"),
    "text": (str, "a text"),
    "texts": ((str, list), "a text, or a list of texts"),
    "mapping": (dict, "keys and values"),
    "any": (object, "anything"),
}


class Translated(NamedTuple):
    """What the keys mean.

    Attributes:
        values: by our own keys; devices.nnodes, devices.per_node and devices.replicas are not yet limits of the engine.
        notes: what people should know, a line each.
    """

    values: dict[str, Any]
    notes: list[str]


def translate_verl_keys(said: Mapping[str, Said]) -> Translated:
    """
    Raises:
        ConfigError: a value is of another type, or none that is served; or two keys contradict each other.
    """
    values = {name: each.value for name, each in said.items() if name not in _ROWS}
    names = {name: said[name].name for name in values}
    for row in VERL_KEYS:
        if row.name in said:
            _check(row, said[row.name])
            if row.effect == "honoured":
                _set(row, said[row.name], values, names)
    if any(each.name.startswith(_SECTIONS) for each in said.values()):
        _fill_in(said, values)
    _name_adapter(values)
    return Translated(values, _notes(said))


def _check(row: VerlKey, said: Said) -> None:
    name, value = said
    if value is None:
        return
    if isinstance(value, str) and "${" in value and row.effect != "ignored":
        raise ConfigError(f"{name}: {value} is not resolved: write the value itself")
    if row.allowed is not None and value not in row.allowed:
        *others, last = ["null" if each is None else str(each) for each in row.allowed]
        expected = f"{', '.join(others)} or {last}" if others else last
        raise ConfigError(f"{name} must be {expected}, not {value!r}{f': {row.note}' if row.note else ''}")
    types, expected = _TYPES[row.kind]
    is_such = isinstance(value, types) and (not isinstance(value, bool) or row.kind in ("truth", "any"))
    if is_such and row.kind == "count":
        is_such = value >= 1
    if is_such and isinstance(value, list) and row.kind == "texts":
        is_such = all(isinstance(each, str) for each in value)
    if not is_such:
        raise ConfigError(f"{name} must be {expected}, not {value!r}")


def _set(row: VerlKey, said: Said, values: dict[str, Any], names: dict[str, str]) -> None:
    """The key that a row is for, where its value is no contradiction to another one's."""
    if said.value is None:
        return
    value = row.meaning.get(said.value, said.value) if row.meaning else said.value
    before = names.get(row.target)
    if before is not None and values[row.target] != value and not _ROWS.get(before, row).yields:
        raise ConfigError(f"{before} and {said.name} say the same, and differ: keep one of them")
    values[row.target] = value
    names[row.target] = row.name if row.yields else said.name


def _fill_in(said: Mapping[str, Said], values: dict[str, Any]) -> None:
    """veRL's defaults, where nobody has said anything; what was said to be null is without one."""
    is_server = any(each.name.startswith(_SERVER_KEYS) for each in said.values())
    for name, value in (SERVER_DEFAULTS if is_server else GENERATION_DEFAULTS).items():
        target = _ROWS[name].target
        others = LENGTH_OPTIONS if target == "generation.max_tokens" else ()
        if name not in said and target not in values and not {f"generation.{other}" for other in others} & said.keys():
            values[target] = value


def _name_adapter(values: dict[str, Any]) -> None:
    path = values.pop("lora_adapter_path", None)
    if path is None:
        return
    if values.get("adapters") is not None:
        raise ConfigError("model.lora_adapter_path and adapters both name adapters: keep one of them")
    values |= {"adapters": {"lora": path}, "adapter_id": "lora"}


def _notes(said: Mapping[str, Said]) -> list[str]:
    notes = []
    ignored = [
        each.name for name, each in said.items()
        if name in _ROWS and _ROWS[name].effect == "ignored" and each.value is not None
    ]  # fmt: skip
    if ignored:
        notes.append(f"of no effect here, and ignored: {', '.join(ignored)}")
    device = said.get("trainer.device")
    if device is not None and device.value in ("cuda", "gpu"):
        notes.append(f"{device.name} {device.value}: there is no CUDA; the NPUs or the CPU of this machine are used")
    return notes
