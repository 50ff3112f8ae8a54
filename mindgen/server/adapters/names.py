"""Which names adapters may have, so that a name never means two models."""

from collections.abc import Iterable

from mindgen.adapters.registry import BASE_NAME
from mindgen.errors import ConfigError
from mindgen.server.observe.adapter_counts import OTHERS
from mindgen.system.checks import shown

_MOST_LETTERS = 256


def why_not_named(name: str, base: str) -> str | None:
    """Why no adapter may be called so; None if one may. Names are in addresses, in logs, and metrics' labels.

    Args:
        base: what clients call the base model.
    """
    if not name:
        return "is empty"
    if name in (BASE_NAME, base):
        return "is the base model's"
    if name == OTHERS:
        return "stands for adapters that metrics do not name"
    if len(name) > _MOST_LETTERS:
        return f"has {len(name)} letters, and may have {_MOST_LETTERS}"
    if not name.isprintable() or name != name.strip():
        return "has letters that cannot be printed, or spaces around it"
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        return "has an empty part, . or .. between slashes"
    return None


def check_names(base: str, adapters: Iterable[str]) -> None:
    """Raises ConfigError where one of the adapters may not be called as it is."""
    for name in adapters:
        why = why_not_named(name, base)
        if why is not None:
            raise ConfigError(
                f"an adapter is called {shown(name)}, which {why}: rename it, or choose another --served_model_name"
            )
