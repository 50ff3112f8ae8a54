"""Writes rows as files of each kind."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from mindgen.batch.arrow_types import cast
from mindgen.batch.content import content
from mindgen.batch.plain_values import json_values, text_column
from mindgen.batch.rows import Rows

# A row group is full with so many rows, or bytes of values.
_GROUP_ROWS = 16_384
_GROUP_BYTES = 256 << 20


class Sink(ABC):
    """Takes rows of the input with what is added to them, in order."""

    @abstractmethod
    def write(self, rows: Rows, added: pa.Table) -> None:
        """Writes rows.

        Args:
            added: columns to go with them, with k rows in a row for each of the input; or none.

        Raises:
            OSError: the disk is full.
        """

    @abstractmethod
    def close(self) -> None:
        """Writes what is left."""


class ParquetSink(Sink):
    """Row groups of one size, whichever pieces they come in."""

    def __init__(self, file: BinaryIO, source: pa.Schema, added: pa.Schema) -> None:
        self._schema = _schema(source, added)
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd", write_page_checksum=True)
        self._gathered: list[pa.Table] = []
        self._num_rows = self._num_bytes = 0

    def write(self, rows: Rows, added: pa.Table) -> None:
        table = _joined(rows, added)
        while table.num_rows > 0:
            piece = table.slice(0, _GROUP_ROWS - self._num_rows)
            table = table.slice(piece.num_rows)
            self._gathered.append(piece)
            self._num_rows += piece.num_rows
            self._num_bytes += _num_bytes(piece)
            if self._num_rows >= _GROUP_ROWS or self._num_bytes >= _GROUP_BYTES:
                self._write_group()

    def close(self) -> None:
        if self._gathered:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        # In one piece: where pieces end, pages would.
        columns = pa.concat_tables(self._gathered).combine_chunks().columns
        columns = [cast(column, kind) for column, kind in zip(columns, self._schema.types, strict=True)]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=self._num_rows)
        self._gathered = []
        self._num_rows = self._num_bytes = 0


class CsvSink(Sink):
    """A header and a line for each row; what is no text or number is written as in JSON."""

    def __init__(self, file: BinaryIO, source: pa.Schema, added: pa.Schema) -> None:
        self._writer = csv.CSVWriter(file, _plain(_schema(source, added).empty_table()).schema)

    def write(self, rows: Rows, added: pa.Table) -> None:
        self._writer.write_table(_plain(_joined(rows, added)))

    def close(self) -> None:
        self._writer.close()


class JsonLinesSink(Sink):
    """An object for each row: that of the input as it stands there, with the added keys."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: Rows, added: pa.Table) -> None:
        repeats = _repeats(rows, added)
        ends = _json_ends(added)
        lines: list[bytes] = []
        for number, text in enumerate(rows.json_objects()):
            start = text[:-1].rstrip()
            separator = b"," if start != b"{" else b""
            lines.extend(start + separator + end for end in ends[number * repeats : (number + 1) * repeats])
        self._file.write(b"".join(lines))

    def close(self) -> None:
        self._file.flush()


class TextSink(Sink):
    """One of the added texts a line: its newlines as \\n, and its backslashes as two; an empty line for none."""

    def __init__(self, file: BinaryIO, column: str) -> None:
        self._file = file
        self._column = column

    def write(self, rows: Rows, added: pa.Table) -> None:
        texts: Sequence[str | None] = added.column(self._column).to_pylist()
        self._file.write("".join(f"{_escaped(text)}\n" for text in texts).encode())

    def close(self) -> None:
        self._file.flush()


def _escaped(text: str | None) -> str:
    return "" if text is None else text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _json_ends(added: pa.Table) -> list[bytes]:
    """What goes before the end of each row's object, and the end."""
    encode = msgspec.json.Encoder().encode
    names = added.column_names
    columns: list[list[Any]] = [json_values(column) for column in added.columns]
    return [encode(dict(zip(names, row, strict=True)))[1:] + b"\n" for row in zip(*columns, strict=True)]


def _repeats(rows: Rows, added: pa.Table) -> int:
    if added.num_columns == 0:
        return 1
    repeats, left = divmod(added.num_rows, rows.num_rows)
    if left:
        raise ValueError(f"{added.num_rows} rows cannot be added to {rows.num_rows}")
    return repeats


def _joined(rows: Rows, added: pa.Table) -> pa.Table:
    """The columns of both, each row of the input as often as it has samples."""
    table = rows.table()
    repeats = _repeats(rows, added)
    if repeats != 1:
        table = table.take(np.repeat(np.arange(rows.num_rows), repeats))
    return pa.table([*table.columns, *added.columns], names=[*table.column_names, *added.column_names])


def _schema(source: pa.Schema, added: pa.Schema) -> pa.Schema:
    return pa.schema([*source, *added], metadata=source.metadata)


def _plain(table: pa.Table) -> pa.Table:
    return pa.table([text_column(column) for column in table.columns], names=table.column_names)


def _num_bytes(table: pa.Table) -> int:
    """Of the values alone, which pieces of memory do not change."""
    return sum(len(part) for column in table.columns for chunk in column.chunks for part in content(chunk))
