"""The output file of a batch job."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from mindgen.batch.formats.open_file import ENDINGS
from mindgen.batch.formats.writers import CsvSink, JsonLinesSink, ParquetSink, Sink, TextSink
from mindgen.batch.source import Source
from mindgen.errors import ConfigError, DataError
from mindgen.system.atomic import whole_file
from mindgen.system.suggestion import did_you_mean

__all__ = ["Sink", "check_added_names", "check_output", "open_sink"]


def check_output(path: Path, source: Source, added: pa.Schema, text_column: str) -> None:
    """Whether open_sink will take these, to be asked before anything is generated.

    Raises:
        ConfigError: the path has an unknown ending or is a file of the source, or columns clash.
        DataError: a Parquet or CSV file needs types, which a column of the JSON lines of the source has not.
    """
    source.refuse_as_output(path)
    if path.suffix not in ENDINGS:
        raise ConfigError(
            f"the output {path} must end in one of {', '.join(ENDINGS)}{did_you_mean(path.suffix, ENDINGS)}"
        )
    if path.suffix == ".txt":
        if not pa.types.is_string(added.field(text_column).type):
            raise ConfigError(
                f"the output {path} holds one text a line, not the lists of {text_column}: name a .jsonl file"
            )
        return
    check_added_names(source, added)
    if path.suffix != ".jsonl":
        source.schema()


def check_added_names(source: Source, added: pa.Schema) -> None:
    """Raises ConfigError if a column that is to be added has the name of one of the input."""
    both = [name for name in added.names if name in source.column_names]
    if both:
        raise ConfigError(
            f"the input has columns of its own named {', '.join(both)}: give those that are added a prefix, "
            "like prefix: new_"
        )


@contextmanager
def open_sink(path: Path, source: Source, added: pa.Schema, text_column: str) -> Iterator[Sink]:
    """Writes the file, which is there whole when this is left without an error, and not touched else.

    Its content follows from what is written alone: the same rows make the same bytes.

    Args:
        path: whose ending says what kind of file: .parquet, .jsonl, .csv or .txt.
        added: the columns that go behind those of the source.
        text_column: that of them that a .txt file holds.

    Raises:
        ConfigError, DataError: as check_output.
        DataError: the file cannot be written: the disk is full, say.
    """
    check_output(path, source, added, text_column)
    try:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            sink = _sink(path.suffix, file, source, added, text_column)
            try:
                yield sink
            except BaseException:
                with suppress(Exception):
                    sink.close()
                raise
            sink.close()
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def _sink(kind: str, file: BinaryIO, source: Source, added: pa.Schema, text_column: str) -> Sink:
    match kind:
        case ".parquet":
            return ParquetSink(file, source.schema(), added)
        case ".csv":
            return CsvSink(file, source.schema(), added)
        case ".jsonl":
            return JsonLinesSink(file)
    return TextSink(file, text_column)
