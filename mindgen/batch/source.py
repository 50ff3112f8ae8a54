"""The rows of a batch job's input, from one file or many, in an order that does not change."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mindgen.batch.file_digest import file_digest
from mindgen.batch.formats.open_file import open_files
from mindgen.batch.formats.rows_file import RowsFile, Span, reading
from mindgen.batch.input_files import find_input_files
from mindgen.batch.rows import Rows
from mindgen.errors import ConfigError, DataError
from mindgen.system.suggestion import did_you_mean


def open_source(inputs: str | Sequence[str], text_column: str = "prompt", output: Path | None = None) -> "Source":
    """The rows of the files that are named: all of one kind, with equal columns.

    Args:
        inputs: files, folders of files, and patterns like "data/*.parquet".
        text_column: what the one column of a text file is called.
        output: a file that folders and patterns do not mean, nor what is in the folder of its job.

    Raises:
        ConfigError: a name says nothing that can be read.
        DataError: a file cannot be read or is not what its name says, they do not go together, or there is no row.
    """
    paths = find_input_files([inputs] if isinstance(inputs, str) else inputs, output)
    files = open_files(paths, text_column)
    for file in files[1:]:
        difference = file.difference(files[0])
        if difference is not None:
            raise DataError(f"{file.path} does not go with {files[0].path}: {difference}")
    source = Source(files)
    if source.num_rows == 0:
        raise DataError(f"there is no row in {', '.join(str(path) for path in paths[:3])}{' ...' * (len(paths) > 3)}")
    return source


class Source:
    """Rows that are numbered from 0 over all files.

    Attributes:
        files: in the order of their rows.
        num_rows: of all of them.
        column_names: of the columns.
    """

    def __init__(self, files: Sequence[RowsFile]) -> None:
        self.files = tuple(files)
        self.num_rows = sum(file.num_rows for file in files)
        self.column_names = tuple(files[0].column_names)

    def schema(self) -> pa.Schema:
        """The types of the columns.

        Raises:
            DataError: JSON values of a column have no type in common.
        """
        return self.files[0].schema()

    def check_column(self, name: str) -> None:
        """Raises DataError if there is no such column."""
        if name not in self.column_names:
            raise DataError(
                f"{self.files[0].path} has no column {name}{did_you_mean(name, self.column_names)}; "
                f"it has {', '.join(self.column_names)}"
            )

    def refuse_as_output(self, path: Path) -> None:
        """Raises ConfigError if the path is one of the files, by whatever name."""
        for file in self.files:
            if path.exists() and path.samefile(file.path):
                raise ConfigError(f"the output {path} is the input {file.path} itself: name another output")

    def digests(self) -> list[str]:
        """Of each file's content.

        Raises:
            DataError: a file cannot be read any more.
        """
        digests = []
        for file in self.files:
            with reading(file.path):
                digests.append(file_digest(file.path))
        return digests

    def blocks(self, rows_per_block: int, skip: Callable[[int], bool] = lambda block: False) -> Iterator[Rows]:
        """The rows in order, block k from row k * rows_per_block on, without the blocks that are to be skipped.

        Raises:
            DataError: a file is damaged, or has changed since this was opened.
        """
        pieces: list[Any] = []
        num_pieces_rows = 0
        file_start = 0
        for file in self.files:
            spans = list(self._spans(file_start, file.num_rows, rows_per_block, skip))
            # A file of which nothing is wanted is not opened.
            for (begin, end), piece in zip(spans, file.read(spans) if spans else (), strict=True):
                pieces.append(piece)
                num_pieces_rows += end - begin
                first_row = file_start + end - num_pieces_rows
                if num_pieces_rows == min(rows_per_block, self.num_rows - first_row):
                    yield self.files[0].rows(first_row, pieces)
                    pieces, num_pieces_rows = [], 0
            file_start += file.num_rows

    def _spans(self, start: int, num_rows: int, rows_per_block: int, skip: Callable[[int], bool]) -> Iterator[Span]:
        """Of a file whose first row has the number `start`: its rows of each block that is wanted."""
        row = start
        while row < start + num_rows:
            block = row // rows_per_block
            end = min((block + 1) * rows_per_block, start + num_rows)
            if not skip(block):
                yield row - start, end - start
            row = end
