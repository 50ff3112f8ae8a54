"""Tables of other libraries as input: a pandas frame, a datasets.Dataset, whatever gives an Arrow stream."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mindgen.batch.formats.rows_file import one_line
from mindgen.errors import ConfigError
from mindgen.system.atomic import whole_file
from mindgen.system.checks import shown

_FILE = "input.parquet"
_GROUP_ROWS = 16_384  # in memory at once, of a table that is not there already


def as_files(given: Any, folder: Path) -> str | Sequence[str]:
    """What names files as it is; a table is written into the folder, the same bytes for the same table.

    Raises:
        ConfigError: it is neither, or a table that no file holds.
        OSError: the disk is full.
    """
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    if isinstance(given, Sequence) and all(isinstance(each, (str, os.PathLike)) for each in given):
        return [os.fspath(each) for each in given]
    with _refusing(given):
        schema, pieces = _pieces(given)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / _FILE) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
            for piece in pieces:
                writer.write_table(piece, _GROUP_ROWS)
    return str(folder / _FILE)


def _pieces(given: Any) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Its schema, and tables that make it up; raises ConfigError where it is no table."""
    library = type(given).__module__.partition(".")[0]
    if isinstance(given, pa.Table):
        return given.schema, iter([given])
    if library == "pandas" and hasattr(given, "columns"):
        table = pa.Table.from_pandas(given)
        return table.schema, iter([table])
    if library == "datasets" and hasattr(given, "with_format"):
        return _pieces_of_dataset(given)
    if hasattr(given, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(given)
        return reader.schema, (pa.Table.from_batches([batch]) for batch in reader)
    raise ConfigError(
        f"the input must be files, folders or patterns, or a pandas frame, a datasets.Dataset or an Arrow table, "
        f"not {shown(given)}"
    )


def _pieces_of_dataset(given: Any) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Of its selection and order, which its own table has not."""
    name = type(given).__name__
    if isinstance(given, Mapping):
        raise ConfigError(f"the input is a {name} of the splits {', '.join(map(str, given))}: give one of these")
    if not hasattr(given, "num_rows"):
        raise ConfigError(f"the input is an {name}, whose rows are not known: load it without streaming, or as files")
    formatted = given.with_format("arrow")
    return formatted[:0].schema, formatted.iter(_GROUP_ROWS)


@contextmanager
def _refusing(given: Any) -> Iterator[None]:
    """What Arrow refuses becomes one line."""
    try:
        yield
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ConfigError(f"the input is a {type(given).__name__} that no file can hold: {one_line(error)}") from error
