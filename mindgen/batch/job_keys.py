"""What was said of a job's keys, veRL's and our own, by a file and then by words like key=value."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mindgen.batch.verl_keys import VERL_KEYS
from mindgen.compat.hydra_overrides import Override
from mindgen.errors import ConfigError
from mindgen.system.suggestion import closest

_BELOW = "actor_rollout_ref."
_ALSO_BELOW = (f"{_BELOW}rollout.", f"{_BELOW}model.")
_ANYTHING = ".*"


class Said(NamedTuple):
    """The value of a key; None is without one. `name` is the key as it was written."""

    name: str
    value: Any


class JobKeys:
    """Attributes:
    said: by the key's name in VERL_KEYS, or our own.

    Args:
        own: the names of our own keys, and
        mappings: those of them whose values are mappings.
    """

    def __init__(self, own: Sequence[str], mappings: Sequence[str]) -> None:
        verl = [row.name for row in VERL_KEYS]
        self.said: dict[str, Said] = {}
        names = {*own, *verl}
        self._sections = {name[:place] for name in names for place, letter in enumerate(name) if letter == "."}
        self._own = set(own) - self._sections
        self._leaves = names - self._sections
        self._mappings = [*mappings, *(row.name for row in VERL_KEYS if row.kind == "mapping")]
        below = [f"{_BELOW}{name}" for name in verl if f"{_BELOW}{name}".startswith(_ALSO_BELOW)]
        self._shown = [name.removesuffix(_ANYTHING) for name in (*own, *verl, *below)]

    def read(self, raw: Mapping[Any, Any], prefix: str = "") -> None:
        """What a file holds.

        Raises:
            ConfigError: a key is unknown.
        """
        for key, value in raw.items():
            self.put(f"{prefix}{key}", value)

    def apply(self, override: Override) -> None:
        """
        Raises:
            ConfigError: the key is unknown, or has another value than the one to be removed.
        """
        if override.operation != "remove":
            self.put(override.key, override.value)
            return
        for name in self._under(override.key):
            found = self.said.get(name)
            if override.has_value and (found is None or found.value != override.value):
                has = "no value was given" if found is None else f"it has {found.value!r}"
                raise ConfigError(f"~{override.key}={override.value}: {has}")
            if name in self._own:
                self.said.pop(name, None)
            else:
                self.said[name] = Said(override.key, None)

    def put(self, key: str, value: Any) -> None:
        """
        Raises:
            ConfigError: the key is unknown.
        """
        name = self._find(key)
        if name is None and self._canonical(key) in self._sections and (value is None or isinstance(value, Mapping)):
            self.read(value or {}, f"{key}.")
        elif name is None:
            raise self._unknown(key, value)
        elif name.endswith(_ANYTHING):
            self.said[name] = Said(key[: len(key) - len(self._canonical(key)) + len(name) - 2], value)
        elif self._canonical(key) != name:
            self._put_inside(key, name, value)
        else:
            self.said[name] = Said(key, value)

    def _put_inside(self, key: str, name: str, value: Any) -> None:
        """Of a key whose value is a mapping, an entry."""
        inside = self._canonical(key)[len(name) + 1 :].split(".")
        typed = key[: len(key) - len(".".join(inside)) - 1]
        before = self.said.get(name)
        whole = dict(before.value) if before is not None and isinstance(before.value, Mapping) else {}
        section = whole
        for part in inside[:-1]:
            section[part] = dict(section[part]) if isinstance(section.get(part), Mapping) else {}
            section = section[part]
        section[inside[-1]] = value
        self.said[name] = Said(typed, whole)

    def _canonical(self, key: str) -> str:
        return key.removeprefix(_BELOW) if key.startswith(_ALSO_BELOW) and key not in self._leaves else key

    def _find(self, key: str) -> str | None:
        """The name under which this key is known: its own, of a mapping that it is of, or of an ignored section."""
        name = self._canonical(key)
        if name in self._leaves:
            return name
        for mapping in self._mappings:
            if name.startswith(f"{mapping}."):
                return mapping
        parts = name.split(".")
        sections = (".".join(parts[:count]) + _ANYTHING for count in range(len(parts), 0, -1))
        return next((section for section in sections if section in self._leaves), None)

    def _under(self, key: str) -> Iterator[str]:
        """What is removed with the key."""
        name = self._find(key)
        if name is not None:
            yield name
            return
        section = self._canonical(key)
        if section not in self._sections:
            raise self._unknown(key, None)
        yield from [leaf for leaf in self._leaves if leaf.startswith(f"{section}.")]

    def _unknown(self, key: str, value: Any) -> ConfigError:
        if self._canonical(key) in self._sections:
            return ConfigError(f"{key} must hold keys and values, not {value!r}")
        nearest = closest(key, self._shown, 0)
        return ConfigError(f"unknown key {key!r}; did you mean {nearest!r}?")
