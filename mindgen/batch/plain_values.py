"""The values of Arrow columns as JSON and CSV have them."""

from typing import Any

import msgspec
import pyarrow as pa


def json_values(column: pa.ChunkedArray) -> list[Any]:
    """The values for msgspec's JSON encoder, which writes bytes in base64, and NaN and infinities as null.

    Times and dates are ISO 8601 text with a space for the T, decimals are text, durations a whole number of their
    unit, and maps lists of pairs.
    """
    kind = _json_type(column.type)
    return (column if kind == column.type else column.cast(kind)).to_pylist()  # type: ignore[no-any-return]


def text_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values for a cell of a CSV file: as in JSON, lists and structs as its text; null where there is none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return text_column(column.cast(kind.value_type))
    if pa.types.is_nested(kind) or _is_binary(kind) or isinstance(kind, pa.BaseExtensionType):
        encode = msgspec.json.Encoder().encode
        texts = [None if value is None else encode(value).decode() for value in json_values(column)]
        quoted = _is_binary(kind)
        return pa.chunked_array([pa.array([text[1:-1] if quoted and text else text for text in texts], pa.string())])
    if pa.types.is_null(kind) or _is_written_as_text(kind):
        return column.cast(pa.string())
    return column


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_written_as_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind) or pa.types.is_decimal(kind))


def _json_type(kind: pa.DataType) -> pa.DataType:
    """The type to cast to before the values become Python's."""
    if _is_written_as_text(kind):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        return _json_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _json_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_json_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_json_type(kind.key_type), _json_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_json_type(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_json_type(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_json_type(kind.value_type)))
    return kind
