"""The values in a GGUF file's metadata, of the types that they must have."""

from collections.abc import Mapping
from typing import Any

from mindgen.errors import ModelError
from mindgen.system.checks import shown

_WORDS: dict[type, str] = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def typed_value(metadata: Mapping[str, Any], key: str, kind: type) -> Any:
    """The value, int, float (or an integer), str or bool as `kind` says; None if it is not there.

    Raises:
        ModelError: it is of another type.
    """
    found = metadata.get(key)
    is_kind = isinstance(found, (int, float) if kind is float else kind)
    if found is not None and not (is_kind and isinstance(found, bool) == (kind is bool)):
        raise ModelError(f"GGUF: {key} must be {_WORDS[kind]}, not {shown(found)}")
    return found
