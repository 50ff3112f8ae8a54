"""The engine's limits as users write them: by keyword, with the name that vLLM and ChatLearn have for one of them."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.system.suggestion import closest

MEMORY_UTILIZATION = "memory_utilization"
MEMORY_UTILIZATION_ALIAS = "gpu_memory_utilization"


def unalias_limits(limits: Mapping[str, Any]) -> dict[str, Any]:
    """The limits under their own names.

    Raises:
        ConfigError: one is there under both of its names.
    """
    renamed = dict(limits)
    if MEMORY_UTILIZATION_ALIAS in renamed:
        if MEMORY_UTILIZATION in renamed:
            raise ConfigError(
                f"engine: {MEMORY_UTILIZATION_ALIAS} is another name of {MEMORY_UTILIZATION}: give one of them"
            )
        renamed[MEMORY_UTILIZATION] = renamed.pop(MEMORY_UTILIZATION_ALIAS)
    return renamed


def read_limits(limits: Mapping[str, Any], other_names: Iterable[str] = ()) -> EngineConfig:
    """The configuration that keyword arguments make.

    Args:
        other_names: of arguments beside the limits, which an unknown name may be meant for.

    Raises:
        ConfigError: a name is unknown, or a value is not of its type or out of its range.
    """
    names = [*(field.name for field in fields(EngineConfig)), MEMORY_UTILIZATION_ALIAS]
    for name in limits:
        if name not in names:
            nearest = closest(name, [*names, *other_names], 0)
            raise ConfigError(f"unknown argument {name!r}; did you mean {nearest!r}?")
    try:
        return TypeAdapter(EngineConfig).validate_python(unalias_limits(limits))
    except ValidationError as error:
        details = error.errors()[0]
        message = details["msg"].removeprefix("Input should be ")
        raise ConfigError(f"engine: {details['loc'][0]} must be {message}, not {details['input']!r}") from error
