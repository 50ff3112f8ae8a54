"""Rows of Parquet files."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mindgen.batch.formats.rows_file import Span, one_line, reading, refuse_repeated
from mindgen.batch.formats.tables import BatchCursor, TableFile
from mindgen.errors import DataError

_READ_BYTES = 1 << 20
_BATCH_ROWS = 1024


class ParquetRows(TableFile):
    """A Parquet file, of which row groups that are not wanted are not read."""

    def __init__(self, path: Path) -> None:
        with _refusing(path, "it is not a whole Parquet file"), _opened(path) as file:
            refuse_repeated(path, file.schema_arrow.names)
            super().__init__(path, file.metadata.num_rows, file.schema_arrow)
            group_rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        self._group_starts = list(accumulate(group_rows, initial=0))
        if self._group_starts[-1] != self.num_rows:
            raise DataError(f"cannot read {path}: its row groups have not as many rows as it says")

    def read(self, spans: Iterable[Span]) -> Iterator[pa.Table]:
        with reading(self.path), _opened(self.path) as file:
            current, cursor = -1, BatchCursor(self.path, iter(()))
            for begin, end in spans:
                pieces = []
                while begin < end:
                    group = bisect_right(self._group_starts, begin) - 1
                    start, stop = self._group_starts[group], min(end, self._group_starts[group + 1])
                    with _refusing(self.path, f"row group {group} is damaged"):
                        if group != current:
                            current, cursor = group, BatchCursor(self.path, _batches(file, group))
                        pieces.append(cursor.take(begin - start, stop - start))
                    begin = stop
                yield pa.concat_tables(pieces)


def _opened(path: Path) -> pq.ParquetFile:
    # With a buffer, columns are read as they are decoded, and not each row group whole.
    return pq.ParquetFile(path, buffer_size=_READ_BYTES, page_checksum_verification=True)


def _batches(file: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
    return file.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False)


@contextmanager
def _refusing(path: Path, fault: str) -> Iterator[None]:
    """Errors of the Parquet reader become one line; those of the system are left as they are."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        raise DataError(f"cannot read {path}: {fault}: {one_line(error)}") from error
