"""Which kind of file a name says."""

from collections.abc import Sequence
from pathlib import Path

from mindgen.batch.column_types import ColumnTypes
from mindgen.batch.formats.csv import CsvRows
from mindgen.batch.formats.json_lines import JsonLinesRows
from mindgen.batch.formats.parquet import ParquetRows
from mindgen.batch.formats.rows_file import RowsFile
from mindgen.batch.formats.text import TextRows
from mindgen.errors import ConfigError
from mindgen.system.suggestion import did_you_mean

ENDINGS = (".parquet", ".jsonl", ".csv", ".txt")
INPUT_ENDINGS = (*ENDINGS, ".jsonl.gz", ".csv.gz", ".txt.gz")


def kind_of(path: Path) -> str | None:
    """The ending that says what the file is, without that of compression; None if it is none of INPUT_ENDINGS."""
    for ending in INPUT_ENDINGS:
        if path.name.lower().endswith(ending):
            return ending.removesuffix(".gz")
    return None


def known_kind(path: Path) -> str:
    """The same.

    Raises:
        ConfigError: it is none of the endings.
    """
    kind = kind_of(path)
    if kind is None:
        ending = path.suffix
        raise ConfigError(
            f"{path} must end in one of {', '.join(ENDINGS)}"
            + (f", not {ending}{did_you_mean(ending, ENDINGS)}" if ending else "")
        )
    return kind


def open_files(paths: Sequence[Path], text_column: str) -> list[RowsFile]:
    """The files, which must be of one kind.

    Raises:
        ConfigError: they are of several kinds, or of none.
        DataError: one cannot be read, or is not what its name says.
    """
    kinds: dict[str, Path] = {}
    for path in paths:
        kinds.setdefault(known_kind(path), path)
    if len(kinds) > 1:
        raise ConfigError(f"all input must be of one kind, not {' and '.join(str(path) for path in kinds.values())}")
    types = ColumnTypes()
    return [_open(path, text_column, types) for path in paths]


def _open(path: Path, text_column: str, types: ColumnTypes) -> RowsFile:
    match kind_of(path):
        case ".parquet":
            return ParquetRows(path)
        case ".csv":
            return CsvRows(path)
        case ".txt":
            return TextRows(path, text_column)
    return JsonLinesRows(path, types)
