"""The fields of a dataclass with their types and what its docstring says of them, for flags and configurations."""

import inspect
import re
import typing
from dataclasses import dataclass, fields
from typing import Any

# "name: text", or "name, name: text", as far as the next entry of the section or the next section.
_ENTRY = re.compile(r"^    (\w[\w, ]*): (.+?)(?=\n    \w|\n\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class DocumentedField:
    """One field; kind is its annotation."""

    kind: Any
    description: str


def documented_fields(dataclass_type: Any) -> dict[str, DocumentedField]:
    """By name; a field that the docstring does not mention has an empty description."""
    descriptions: dict[str, str] = {}
    for names, text in _ENTRY.findall(inspect.getdoc(dataclass_type) or ""):
        descriptions |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    kinds = typing.get_type_hints(dataclass_type)
    return {
        field.name: DocumentedField(kinds[field.name], descriptions.get(field.name, ""))
        for field in fields(dataclass_type)
    }
