"""Rows of JSON lines."""

import codecs
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa

from mindgen.batch.column_types import ColumnTypes
from mindgen.batch.formats.rows_file import RowsFile, Span, one_line, open_bytes, reading
from mindgen.batch.rows import JsonRows, Rows
from mindgen.errors import DataError


class JsonLinesRows(RowsFile):
    """A file with a JSON object a line; blank lines are none.

    Args:
        types: where what its values tell about the columns goes, beside that of the other files of its set.
    """

    def __init__(self, path: Path, types: ColumnTypes) -> None:
        decode = msgspec.json.Decoder().decode
        num_rows = 0
        with reading(path):
            for number, line in _lines(path):
                try:
                    row = decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise DataError(f"{path} line {number} is not valid JSON: {one_line(error)}") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path} line {number} must hold a JSON object, not {type(row).__name__}")
                types.add(row, str(path), number)
                num_rows += 1
        super().__init__(path, num_rows)
        self._types = types

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(self._types.names)

    def read(self, spans: Iterable[Span]) -> Iterator[list[bytes]]:
        with reading(self.path):
            lines = (line for _, line in _lines(self.path))
            position = 0
            for begin, end in spans:
                piece = list(islice(lines, begin - position, end - position))
                if len(piece) != end - begin:
                    raise DataError(f"cannot read {self.path}: it has fewer rows than it had")
                yield piece
                position = end

    def rows(self, first_row: int, pieces: list[list[bytes]]) -> Rows:
        return JsonRows(first_row, [line for piece in pieces for line in piece], self._types)

    def schema(self) -> pa.Schema:
        return self._types.schema()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbers and the texts of those that are not blank."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
            if text:
                yield number, text
