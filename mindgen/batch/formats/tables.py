"""What files whose columns have types have in common."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from mindgen.batch.arrow_types import cast, without_views
from mindgen.batch.formats.rows_file import RowsFile
from mindgen.batch.rows import Rows, TableRows
from mindgen.errors import DataError


class TableFile(RowsFile):
    """A file that is read as Arrow tables."""

    def __init__(self, path: Path, num_rows: int, schema: pa.Schema) -> None:
        super().__init__(path, num_rows)
        self._schema = schema
        self._usable = pa.schema([field.with_type(without_views(field.type)) for field in schema])

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(self._schema.names)

    def schema(self) -> pa.Schema:
        return self._schema

    def rows(self, first_row: int, pieces: list[pa.Table]) -> Rows:
        return TableRows(first_row, pa.concat_tables([self._in_usable_types(piece) for piece in pieces]))

    def _in_usable_types(self, piece: pa.Table) -> pa.Table:
        # Without metadata, which may differ between files.
        columns = [cast(column, kind) for column, kind in zip(piece.columns, self._usable.types, strict=True)]
        return pa.Table.from_arrays(columns, schema=self._usable)

    def difference(self, first: RowsFile) -> str | None:
        found = super().difference(first)
        if found is not None:
            return found
        for field, other in zip(self.schema(), first.schema(), strict=True):
            if not field.equals(other):
                return f"its column {field.name} is {_described(field)}, not {_described(other)}"
        return None


class BatchCursor:
    """Takes rows out of batches that come in order."""

    def __init__(self, path: Path, batches: Iterator[pa.RecordBatch]) -> None:
        self._path = path
        self._batches = batches
        self._batch: pa.RecordBatch | None = None
        self._batch_start = 0

    def take(self, begin: int, end: int) -> pa.Table:
        """The rows [begin, end), which must not be before those taken last."""
        pieces: list[pa.RecordBatch] = []
        while begin < end:
            batch = self._batch_of(begin)
            pieces.append(batch.slice(begin - self._batch_start, end - begin))
            begin += pieces[-1].num_rows
        return pa.Table.from_batches(pieces)

    def _batch_of(self, row: int) -> pa.RecordBatch:
        while self._batch is None or row >= self._batch_start + self._batch.num_rows:
            if self._batch is not None:
                self._batch_start += self._batch.num_rows
            self._batch = next(self._batches, None)
            if self._batch is None:
                raise DataError(f"cannot read {self._path}: it has fewer rows than it had, or than it says")
        return self._batch


def _described(field: pa.Field) -> str:
    return str(field.type) if field.nullable else f"{field.type} without nulls"
