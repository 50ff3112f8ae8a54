"""Arrow types made of others."""

from collections.abc import Callable

import pyarrow as pa


def replaced(kind: pa.DataType, replace: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type with what it is made of replaced: the values of lists, and the fields of structs, at any depth."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(replaced(field.type, replace)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(replaced(kind.key_type, replace), replaced(kind.item_type, replace))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(replaced(kind.value_type, replace)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(replaced(kind.value_type, replace)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(replaced(kind.value_type, replace)))
    return replace(kind)


def cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column itself if it is of that type, else in that type."""
    return column if column.type == kind else column.cast(kind)


def without_views(kind: pa.DataType) -> pa.DataType:
    """The type with usual texts and bytes for views of these, for which Arrow has few functions."""
    return replaced(kind, _without_view)


def _without_view(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind
