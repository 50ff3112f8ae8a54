"""Rows of files in other files: one input in several, or outputs of several jobs in one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from mindgen.batch.formats.open_file import known_kind
from mindgen.batch.formats.writers import Sink
from mindgen.batch.rows import Rows, TableRows
from mindgen.batch.sink import open_sink
from mindgen.batch.source import Source
from mindgen.errors import ConfigError, DataError
from mindgen.parallel.shares import even_shares
from mindgen.system.atomic import whole_file

_MOST_BLOCK_ROWS = 4096
_BLOCKS_PER_CHUNK = 64  # at least, so that chunks differ by less than a hundredth or two
_ROW_ID, _BESIDE_IT = "row_id", "model_digest"  # columns of a job's output
_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NOTHING = pa.table({})


def split_rows(source: Source, paths: Sequence[Path]) -> None:
    """The rows in order, in files of about equally many.

    Raises:
        ConfigError: there are fewer rows than files, or a file is one of the source, or its ending does not go with the
            columns.
        DataError: a file cannot be read or written.
    """
    if source.num_rows < len(paths):
        raise ConfigError(f"{source.num_rows} row(s) cannot be split into {len(paths)} files")
    block_rows = min(max(source.num_rows // (_BLOCKS_PER_CHUNK * len(paths)), 1), _MOST_BLOCK_ROWS)
    blocks = source.blocks(block_rows)
    for path, share in zip(paths, even_shares(-(-source.num_rows // block_rows), len(paths)), strict=True):
        with _open_copy(path, source) as copy:
            for _ in share:
                copy.write(next(blocks))


def merge_rows(source: Source, path: Path) -> None:
    """All rows in one file. Where they are outputs of jobs, their row_id goes on from one file to the next.

    Raises:
        ConfigError: the file is one of the source, or its ending does not go with the columns.
        DataError: a file cannot be read or written.
    """
    numbers = _RowNumbers(source)
    with _open_copy(path, source, numbers.column) as copy:
        for rows in source.blocks(_MOST_BLOCK_ROWS):
            copy.write(rows, numbers.of(rows))


class _RowNumbers:
    """Counts on from file to file, in the column that jobs number rows in, if there is one.

    Attributes:
        column: its name, with the prefix that the job gave it.
    """

    def __init__(self, source: Source) -> None:
        names = source.column_names
        prefixes = [name.removesuffix(_ROW_ID) for name in names if name.endswith(_ROW_ID)]
        self.column = next((prefix + _ROW_ID for prefix in prefixes if prefix + _BESIDE_IT in names), None)
        self._starts = np.cumsum([0, *(file.num_rows for file in source.files)])
        self._file = 0
        self._offset = self._next = 0

    def of(self, rows: Rows) -> list[int] | None:
        """Of these rows, which follow the ones before; None if nothing numbers them."""
        if self.column is None:
            return None
        numbers = [int(number) for number in rows.values(self.column)]
        for place, number in enumerate(numbers):
            if rows.first_row + place >= self._starts[self._file + 1]:
                self._file += 1
                self._offset = self._next
            numbers[place] = number + self._offset
            self._next = max(self._next, numbers[place] + 1)
        return numbers


class _Copy:
    """Writes rows, with other values in one column where there are some.

    Args:
        sink: of files whose columns have types; others hold a row a line, of JSON or of text.
    """

    def __init__(self, file: BinaryIO | Sink, is_text: bool, column: str | None) -> None:
        self._file, self._is_text, self._column = file, is_text, column

    def write(self, rows: Rows, numbers: Sequence[int] | None = None) -> None:
        if isinstance(self._file, Sink):
            self._file.write(
                rows if numbers is None else TableRows(rows.first_row, self._table(rows, numbers)), _NOTHING
            )
            return
        if self._is_text:
            lines = [text.encode() for text in rows.table().column(0).to_pylist()]
        else:
            lines = rows.json_objects() if numbers is None else list(self._json_objects(rows, numbers))
        self._file.write(b"".join(line + b"\n" for line in lines))

    def _table(self, rows: Rows, numbers: Sequence[int]) -> pa.Table:
        table = rows.table()
        place = table.column_names.index(self._column)
        field = table.schema.field(place)
        return table.set_column(place, field, pa.array(numbers, pa.int64()).cast(field.type))

    def _json_objects(self, rows: Rows, numbers: Sequence[int]) -> Iterator[bytes]:
        """All other values as they are written."""
        for text, number in zip(rows.json_objects(), numbers, strict=True):
            yield msgspec.json.encode(_RAW_OBJECT.decode(text) | {self._column: msgspec.Raw(str(number).encode())})


@contextmanager
def _open_copy(path: Path, source: Source, column: str | None = None) -> Iterator[_Copy]:
    kind = known_kind(path)
    source.refuse_as_output(path)
    if kind not in (".txt", ".jsonl"):
        with open_sink(path, source, _NOTHING.schema, "") as sink:
            yield _Copy(sink, False, column)
        return
    if kind == ".txt" and len(source.column_names) > 1:
        raise ConfigError(f"{path} would hold one column, and there are {', '.join(source.column_names)}")
    try:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            yield _Copy(file, kind == ".txt", column)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
