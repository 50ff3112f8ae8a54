"""What all kinds of input files have in common."""

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from mindgen.batch.rows import Rows
from mindgen.errors import DataError

Span = tuple[int, int]


class RowsFile(ABC):
    """A file of rows, checked as far as can be without keeping it.

    Attributes:
        path: of the file.
        num_bytes: its size.
        num_rows: how many rows it has.

    Raises:
        DataError: the file cannot be read, or is not what its name says.
    """

    def __init__(self, path: Path, num_rows: int) -> None:
        self.path = path
        self.num_bytes = path.stat().st_size
        self.num_rows = num_rows

    @property
    @abstractmethod
    def column_names(self) -> tuple[str, ...]:
        """The names of its columns; of JSON lines, those of all files of the set."""

    @abstractmethod
    def read(self, spans: Iterable[Span]) -> Iterator[Any]:
        """The rows [begin, end) of each span, as pieces for `rows`; spans are in order, and do not overlap.

        Raises:
            DataError: the file is damaged there, or has changed.
        """

    @abstractmethod
    def rows(self, first_row: int, pieces: list[Any]) -> Rows:
        """Pieces of this file and of others of its set, as rows."""

    @abstractmethod
    def schema(self) -> pa.Schema:
        """The types of the columns, of all files of the set.

        Raises:
            DataError: JSON values of a column have no type in common.
        """

    def difference(self, first: "RowsFile") -> str | None:
        """What sets its columns apart from those of the first file of the set; None if they are equal."""
        if self.column_names == first.column_names:
            return None
        return f"its columns are {', '.join(self.column_names)}, not {', '.join(first.column_names)}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of reading become one line with the file's name."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or one_line(error)}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: it is cut off or damaged: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: it is not UTF-8 text: {error}") from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def open_bytes(path: Path) -> BinaryIO:
    """The file's content, unpacked if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def refuse_repeated(path: Path, names: Iterable[str]) -> None:
    """Raises DataError if two columns have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"cannot read {path}: two of its columns are named {name!r}")
        seen.add(name)
