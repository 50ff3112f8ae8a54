"""The values of Arrow columns as JSON and CSV have them."""

from base64 import b64encode
from typing import Any

import msgspec
import pyarrow as pa

from mindgen.batch.arrow_types import cast, replaced, without_views


def json_values(column: pa.ChunkedArray) -> list[Any]:
    """The values for msgspec's JSON encoder, which writes bytes in base64, and NaN and infinities as null.

    Times and dates are ISO 8601 text with a space for the T, decimals are text, durations a whole number of their
    unit, and maps lists of pairs.
    """
    return cast(column, replaced(column.type, _json_type)).to_pylist()  # type: ignore[no-any-return]


def text_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values for a cell of a CSV file: as in JSON, lists and structs as its text; null where there is none."""
    column = cast(column, without_views(column.type))
    kind = column.type
    if pa.types.is_nested(kind):
        encode = msgspec.json.Encoder().encode
        texts = [None if value is None else encode(value).decode() for value in json_values(column)]
        return pa.chunked_array([pa.array(texts, pa.string())])
    kind = _json_type(kind)
    if _is_binary(kind):
        values = json_values(column)
        return pa.chunked_array([pa.array([value and b64encode(value) for value in values], pa.string())])
    return cast(column, pa.string() if pa.types.is_null(kind) else kind)


def _json_type(kind: pa.DataType) -> pa.DataType:
    """The type whose Python values are JSON's, or whose text is that of CSV."""
    if isinstance(kind, pa.BaseExtensionType):
        return replaced(kind.storage_type, _json_type)
    if pa.types.is_dictionary(kind):
        return replaced(kind.value_type, _json_type)
    if pa.types.is_duration(kind):
        return pa.int64()
    return pa.string() if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) else kind


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))
