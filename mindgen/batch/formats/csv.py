"""Rows of CSV files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from mindgen.batch.formats.rows_file import Span, one_line, open_bytes, reading, refuse_repeated
from mindgen.batch.formats.tables import BatchCursor, TableFile
from mindgen.errors import DataError

_BLOCK_BYTES = 16 << 20  # which no row may exceed


class CsvRows(TableFile):
    """A CSV file with a header; every cell is the text that stands there."""

    def __init__(self, path: Path) -> None:
        with _refusing(path):
            with open_bytes(path) as file:
                names = _reader(file, ()).schema.names
            refuse_repeated(path, names)
            num_rows = _count_rows(path, names)
        super().__init__(path, num_rows, pa.schema([(name, pa.string()) for name in names]))

    def read(self, spans: Iterable[Span]) -> Iterator[pa.Table]:
        with _refusing(self.path), open_bytes(self.path) as file:
            cursor = BatchCursor(self.path, iter(_reader(file, self.column_names)))
            for begin, end in spans:
                yield cursor.take(begin, end)


def _count_rows(path: Path, names: Sequence[str]) -> int:
    """Reads the whole file, which finds its faults."""
    num_rows, last_cell = 0, ""
    with open_bytes(path) as file:
        for batch in _reader(file, names):
            num_rows += batch.num_rows
            if batch.num_rows > 0:
                last_cell = batch.column(batch.num_columns - 1)[-1].as_py()
    # Else all rows behind a quote that somebody forgot to close would be the text of one cell.
    if ("\n" in last_cell or "\r" in last_cell) and not _ends_with_quote(path):
        raise DataError(f"cannot read {path}: the last quote is not closed")
    return num_rows


def _ends_with_quote(path: Path) -> bool:
    """Whether a quote is the last that is no end of a line."""
    last = b""
    with open_bytes(path) as file:
        while chunk := file.read(_BLOCK_BYTES):
            last = (last + chunk).rstrip(b"\r\n")[-1:]
    return last == b'"'


def _reader(file: object, names: Iterable[str]) -> csv.CSVStreamingReader:
    return csv.open_csv(
        file,
        # Without threads, errors name the row.
        read_options=csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, quoted_strings_can_be_null=False
        ),
    )


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except pa.ArrowInvalid as error:
            raise DataError(f"cannot read {path}: {one_line(error)}") from error
