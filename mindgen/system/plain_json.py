"""Values of Python programs as JSON has them."""

from enum import Enum
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """For json.dumps: what a value is in JSON that it does not know by itself.

    Raises:
        TypeError: it has no form there.
    """
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ == "numpy" and not getattr(value, "shape", ()):
        return value.item()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
