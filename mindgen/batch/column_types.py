"""The types of columns whose values come as JSON."""

from typing import Any

import pyarrow as pa

from mindgen.errors import DataError

_MAX_SHAPES = 10_000
_MAX_KEYS = 1_000  # of one object: a column for each of more would take time and memory without end
_EXACT_IN_FLOATS = 2**53
_BITS_64 = 2**63

# While types are gathered, 32 bits stand for whole numbers that floats hold as well.
_NARROW, _WIDE, _HUGE = pa.int32(), pa.int64(), pa.decimal128(38)
_SCALARS = {bool: pa.bool_(), float: pa.float64(), str: pa.string()}
_TOGETHER = {
    frozenset([_NARROW, _WIDE]): _WIDE,
    frozenset([_NARROW, pa.float64()]): pa.float64(),
}
_NAMES = {
    pa.bool_(): "true or false",
    pa.float64(): "a number with a fraction",
    pa.string(): "text",
    _NARROW: "a whole number",
    _WIDE: "a whole number beyond 2^53",
}


class _MixedError(Exception):
    """Values that no column holds together."""


class ColumnTypes:
    """Gathers, row by row, what types hold all values of each column.

    Attributes:
        names: of the columns, as they first appear.
    """

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self._types: dict[str, pa.DataType] = {}
        self._places: dict[str, str] = {}
        self._shapes: set[Any] = set()
        self._mixed: str | None = None

    def add(self, row: dict[str, Any], file: str, line: int) -> None:
        """Takes a row into account; the file and line are for errors."""
        shape = _shape(row)
        if shape in self._shapes:
            return
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        self._shapes.add(shape)
        self.names.update(dict.fromkeys(row))
        if self._mixed is not None:
            return
        try:
            for name, value in row.items():
                known = self._types.get(name, pa.null())
                self._types[name] = self._merged(name, known, value, f"{file} line {line}")
        except _MixedError as error:
            self._mixed = str(error)

    def schema(self) -> pa.Schema:
        """A field for each column.

        Raises:
            DataError: there is no type for all values of a column.
        """
        if self._mixed is not None:
            raise DataError(f"{self._mixed}; write a .jsonl file, which keeps each row as it is")
        return pa.schema([(name, _finished(name, self._types.get(name, pa.null()))) for name in self.names])

    def _merged(self, path: str, known: pa.DataType, value: Any, place: str) -> pa.DataType:
        """The type of the value and of those before it."""
        if value is None:
            return known
        if pa.types.is_null(known):
            self._places[path] = place
        if isinstance(value, list) and (pa.types.is_null(known) or pa.types.is_list(known)):
            items = pa.null() if pa.types.is_null(known) else known.value_type
            for item in value:
                items = self._merged(f"{path}[]", items, item, place)
            return pa.list_(items)
        if isinstance(value, dict) and (pa.types.is_null(known) or pa.types.is_struct(known)):
            return self._merged_struct(path, known, value, place)
        new = _type(value)
        if new == _HUGE:
            raise _MixedError(f"column {path} has a whole number beyond 64 bits in {place}")
        if pa.types.is_null(known) or new == known:
            return new
        if together := _TOGETHER.get(frozenset([known, new])):
            return together
        first = self._places[path]
        raise _MixedError(f"column {path} has mixed types: {_name(known)} in {first}, but {_name(new)} in {place}")

    def _merged_struct(self, path: str, known: pa.DataType, value: dict[str, Any], place: str) -> pa.DataType:
        types = {} if pa.types.is_null(known) else {field.name: field.type for field in known}
        for name, item in value.items():
            types[name] = self._merged(f"{path}.{name}", types.get(name, pa.null()), item, place)
        if len(types) > _MAX_KEYS:
            raise _MixedError(f"column {path} has objects with more than {_MAX_KEYS} different keys, up to {place}")
        return pa.struct(list(types.items()))


def _shape(value: Any) -> Any:
    """Equal for values that tell the same about types."""
    kind = type(value)
    if kind is dict:
        # Without a call for the commonest values, as every row of the input comes by here.
        return tuple([(name, str if type(item) is str else _shape(item)) for name, item in value.items()])
    if kind is list:
        return frozenset([_shape(item) for item in value])
    if kind is int and not -_EXACT_IN_FLOATS <= value <= _EXACT_IN_FLOATS:
        return _type(value)
    return kind


def _type(value: Any) -> pa.DataType:
    """Of a value alone, and of what an object or a list holds, nothing."""
    if type(value) is int:
        if -_EXACT_IN_FLOATS <= value <= _EXACT_IN_FLOATS:
            return _NARROW
        return _WIDE if -_BITS_64 <= value < _BITS_64 else _HUGE
    if isinstance(value, list):
        return pa.list_(pa.null())
    return pa.struct([]) if isinstance(value, dict) else _SCALARS[type(value)]


def _name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "a list"
    return "an object" if pa.types.is_struct(kind) else _NAMES[kind]


def _finished(path: str, kind: pa.DataType) -> pa.DataType:
    """The type as files have it."""
    if pa.types.is_list(kind):
        return pa.list_(_finished(f"{path}[]", kind.value_type))
    if pa.types.is_struct(kind):
        if kind.num_fields == 0:
            raise DataError(f"column {path} has only empty objects, which need a .jsonl file")
        return pa.struct([(field.name, _finished(f"{path}.{field.name}", field.type)) for field in kind])
    return _WIDE if kind == _NARROW else kind
