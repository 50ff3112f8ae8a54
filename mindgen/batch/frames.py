"""Tables of other libraries as input: a pandas frame, a datasets.Dataset, whatever gives an Arrow stream."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mindgen.errors import ConfigError
from mindgen.system.atomic import whole_file
from mindgen.system.checks import shown

_FILE = "input.parquet"


def as_files(given: Any, folder: Path) -> str | Sequence[str]:
    """What names files as it is; a table is written into the folder, the same bytes for the same table.

    Raises:
        ConfigError: it is neither.
        OSError: the disk is full.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, Sequence) and all(isinstance(each, str) for each in given):
        return given
    table = _as_table(given)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / _FILE) as unfinished:
        pq.write_table(table, unfinished)
    return str(folder / _FILE)


def _as_table(given: Any) -> pa.Table:
    library = type(given).__module__.partition(".")[0]
    if isinstance(given, pa.Table):
        return given
    if library == "pandas" and hasattr(given, "columns"):
        return pa.Table.from_pandas(given)
    if library == "datasets" and hasattr(given, "with_format"):
        return given.with_format("arrow")[:]  # its selection and order, which its own table has not
    if hasattr(given, "__arrow_c_stream__"):
        return pa.table(given)
    raise ConfigError(
        f"the input must be files, folders or patterns, or a pandas frame, a datasets.Dataset or an Arrow table, "
        f"not {shown(given)}"
    )
