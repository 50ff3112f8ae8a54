"""Which names adapters may have, so that a name never means two models."""

from collections.abc import Iterable

from mindgen.adapters.registry import BASE_NAME
from mindgen.errors import ConfigError


def why_not_named(name: str, base: str) -> str | None:
    """Why no adapter may be called so; None if one may.

    Args:
        base: what clients call the base model.
    """
    if not name:
        return "is empty"
    if name in (BASE_NAME, base):
        return "is the base model's"
    return None


def check_names(base: str, adapters: Iterable[str]) -> None:
    """Raises ConfigError where one of the adapters may not be called as it is."""
    for name in adapters:
        why = why_not_named(name, base)
        if why is not None:
            raise ConfigError(
                f"an adapter is called {name!r}, which {why}: rename it, or choose another --served_model_name"
            )
