"""Some rows of an input, in the form in which their file has them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
import pyarrow as pa

from mindgen.batch.column_types import ColumnTypes
from mindgen.batch.content import content
from mindgen.batch.plain_values import json_values

_DIGEST_BYTES = 16


class Rows(ABC):
    """Rows that follow each other.

    Attributes:
        first_row: the number of the first one in the whole input, from 0.
        num_rows: how many they are.
    """

    def __init__(self, first_row: int, num_rows: int) -> None:
        self.first_row = first_row
        self.num_rows = num_rows

    @abstractmethod
    def values(self, column: str) -> list[Any]:
        """The column's values; None where there is none."""

    @abstractmethod
    def digest(self) -> str:
        """Another one if any value of any column is another."""

    @abstractmethod
    def table(self) -> pa.Table:
        """All columns, in the types of the whole input."""

    @abstractmethod
    def json_objects(self) -> list[bytes]:
        """Each row as the text of a JSON object, in one line."""


class TableRows(Rows):
    """Rows of a file whose columns have types."""

    def __init__(self, first_row: int, table: pa.Table) -> None:
        super().__init__(first_row, table.num_rows)
        self._table = table

    def values(self, column: str) -> list[Any]:
        if column not in self._table.column_names:
            return [None] * self.num_rows
        return self._table.column(column).to_pylist()  # type: ignore[no-any-return]

    def digest(self) -> str:
        digest = hashlib.blake2b(str(self.num_rows).encode(), digest_size=_DIGEST_BYTES)
        for field, column in zip(self._table.schema, self._table.columns, strict=True):
            digest.update(f"{field.name}\0{field.type}\0".encode())
            for values in content(_joined(column)):
                digest.update(values)
        return digest.hexdigest()

    def table(self) -> pa.Table:
        return self._table

    def json_objects(self) -> list[bytes]:
        encode = msgspec.json.Encoder().encode
        names = self._table.column_names
        columns = [json_values(column) for column in self._table.columns]
        return [encode(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


class JsonRows(Rows):
    """Rows that are JSON objects, of which each may have keys and types of its own."""

    def __init__(self, first_row: int, lines: Sequence[bytes], types: ColumnTypes) -> None:
        super().__init__(first_row, len(lines))
        self._lines = lines
        self._types = types

    @cached_property
    def _objects(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self._lines]

    def values(self, column: str) -> list[Any]:
        return [row.get(column) for row in self._objects]

    def digest(self) -> str:
        return hashlib.blake2b(b"\n".join(self._lines), digest_size=_DIGEST_BYTES).hexdigest()

    def table(self) -> pa.Table:
        schema = self._types.schema()
        return pa.table([pa.array(self.values(field.name), field.type) for field in schema], schema=schema)

    def json_objects(self) -> list[bytes]:
        return list(self._lines)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
