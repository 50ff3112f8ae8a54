"""Rows of plain text."""

import codecs
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from mindgen.batch.formats.rows_file import Span, open_bytes, reading
from mindgen.batch.formats.tables import TableFile
from mindgen.errors import DataError


class TextRows(TableFile):
    """A text file with a row a line, whichever of the usual ends lines have."""

    def __init__(self, path: Path, column: str) -> None:
        num_rows = 0
        with reading(path):
            for line in _lines(path):
                num_rows += 1
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    raise DataError(f"{path} line {num_rows} is not UTF-8 text: {error}") from error
        super().__init__(path, num_rows, pa.schema([(column, pa.string())]))

    def read(self, spans: Iterable[Span]) -> Iterator[pa.Table]:
        with reading(self.path):
            lines = _lines(self.path)
            position = 0
            for begin, end in spans:
                texts = [line.decode() for line in islice(lines, begin - position, end - position)]
                if len(texts) != end - begin:
                    raise DataError(f"cannot read {self.path}: it has fewer rows than it had")
                yield pa.table([pa.array(texts, pa.string())], schema=self.schema())
                position = end


def _lines(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        for number, line in enumerate(file):
            yield from (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).splitlines()
