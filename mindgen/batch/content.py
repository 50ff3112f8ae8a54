"""The values of Arrow arrays as bytes, whichever way they lie in memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def content(array: pa.Array) -> Iterator[bytes]:
    """Equal arrays of one type and length give equal bytes, and others different ones.

    Buffers themselves would not do: they hold anything where a value is null, or outside of a slice.
    """
    yield np.packbits(_numbers(array.is_valid())).tobytes()
    array = array.drop_null()
    if len(array) > 0:
        yield from _values(array, array.type)


def _values(array: pa.Array, kind: pa.DataType) -> Iterator[bytes]:
    """Of an array that has values, and no null."""
    if isinstance(kind, pa.BaseExtensionType):
        yield from _values(array.storage, kind.storage_type)
    elif pa.types.is_dictionary(kind):
        yield from content(array.dictionary_decode())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            yield from content(child)
    elif pa.types.is_map(kind):
        offsets = _numbers(array.offsets)
        yield np.diff(offsets).tobytes()
        for child in (array.keys, array.items):
            yield from content(child.slice(offsets[0], offsets[-1] - offsets[0]))
    elif pa.types.is_nested(kind):
        yield _numbers(pc.list_value_length(array)).tobytes()
        yield from content(pc.list_flatten(array))
    elif pa.types.is_boolean(kind):
        yield np.packbits(_numbers(array)).tobytes()
    elif _has_fixed_width(kind):
        width = kind.byte_width
        yield memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width].tobytes()
    else:
        array = array.cast(pa.large_binary())
        _, offset_buffer, data = array.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
        yield np.diff(offsets).tobytes()
        if offsets[-1] > offsets[0]:
            yield memoryview(data)[offsets[0] : offsets[-1]].tobytes()


def _has_fixed_width(kind: pa.DataType) -> bool:
    return pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind)


def _numbers(array: pa.Array) -> "np.ndarray[Any, np.dtype[Any]]":
    return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
