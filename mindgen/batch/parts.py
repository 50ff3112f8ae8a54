"""Where a job keeps answers until all are there: a file for each part of the rows, and a journal while it is in work.

parts/00000012.jsonl holds a header, the answers in the rows' order, and a checksum; it is there whole or not at all.
parts/00000012.journal holds the digest of the rows, and the answers as they came, a line for each row; a line that a
crash has torn does not count.
"""

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from mindgen.batch.answer import Answer
from mindgen.batch.totals import Totals
from mindgen.errors import BatchError
from mindgen.system.atomic import whole_file
from mindgen.system.file_lock import lock_within

_FOLDER = "parts"
# For the end of a process that is cut off from all others, which takes Ray up to a minute to see.
_WAIT_SECONDS = 120.0
_LINES = msgspec.json.Decoder(list[Answer])


class PartHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Of a part, for those who do not read its answers.

    Attributes:
        first_row, num_rows: of the whole input.
        rows_digest: of these rows, all columns.
        totals: of the answers.
    """

    part: int
    first_row: int
    num_rows: int
    rows_digest: str
    totals: Totals


class _Checksum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line of a part, of all bytes before it."""

    crc32: int


_HEADER = msgspec.json.Decoder(PartHeader)
_END = msgspec.json.Decoder(_Checksum)
_CHECKSUM_BYTES = 24  # at most


class Parts:
    """The files of a job's parts.

    Args:
        folder: the job's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER

    def path(self, part: int) -> Path:
        return self._folder / f"{part:08d}.jsonl"

    def journal_path(self, part: int) -> Path:
        return self._folder / f"{part:08d}.journal"

    def there(self) -> set[int]:
        """The parts that are there, torn or not."""
        return {int(path.stem) for path in self._folder.glob("*.jsonl")}

    def headers(self) -> Iterator[tuple[int, PartHeader | None]]:
        """Of all parts that are there, in order; None of one that a crash has torn."""
        for part in sorted(self.there()):
            yield part, self.header(part)

    def header(self, part: int) -> PartHeader | None:
        """Of a part that is there, without a look at its answers; None where a crash has torn it."""
        with self.path(part).open("rb") as file:
            try:
                header = _HEADER.decode(file.readline())
                file.seek(-min(_CHECKSUM_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
                end = file.read()
                _END.decode(end.splitlines()[-1])
            except (IndexError, msgspec.MsgspecError):
                return None
        return header if end.endswith(b"\n") else None

    def in_work(self) -> list[int]:
        """The parts that have a journal alone, in order."""
        numbers = sorted(int(path.stem) for path in self._folder.glob("*.journal"))
        return [part for part in numbers if not self.path(part).is_file()]

    def journaled(self) -> Iterator[list[Answer]]:
        """The answers of the parts that are in work, row by row."""
        for part in self.in_work():
            yield from self._read_journal(part)[1]

    def read(self, part: int) -> tuple[PartHeader, list[list[Answer]]]:
        """The part's header, and its answers row by row.

        Raises:
            BatchError: it is damaged. It is removed then, so that its rows are made anew.
        """
        path = self.path(part)
        content = path.read_bytes()
        end = content.rfind(b"\n", 0, -1) + 1
        if content[end:] != _checksum(content[:end]):
            path.unlink()
            raise BatchError(f"{path} was damaged, and is removed: run the job again, which makes its rows anew")
        first, *lines, _ = content.splitlines()
        return _HEADER.decode(first), [_LINES.decode(line) for line in lines]

    def write(self, header: PartHeader, answers: list[list[Answer]]) -> None:
        """The part, whole; its journal is not needed any more."""
        content = _line(header) + b"".join(map(_line, answers))
        with whole_file(self.path(header.part)) as unfinished:
            unfinished.write_bytes(content + _checksum(content))
        self.journal_path(header.part).unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes them, as nobody needs them any more."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def open_journal(self, part: int, rows_digest: str) -> "Journal":
        """
        Raises:
            BatchError: the journal is of other rows, or another process has it.
        """
        self._folder.mkdir(exist_ok=True)
        return Journal(self.journal_path(part), rows_digest)

    def failed(self) -> list[int]:
        """The parts, whole or in work, with rows that have failed."""
        whole = [part for part, header in self.headers() if header is not None and header.totals.rows_failed]
        return whole + [part for part in self.in_work() if any(map(_has_failed, self._read_journal(part)[1]))]

    def reopen_failed(self, part: int) -> None:
        """Has the part in work, without the rows that have failed."""
        if self.path(part).is_file():
            header, answers = self.read(part)
            digest: str | None = header.rows_digest
        else:
            digest, answers, _ = self._read_journal(part)
        kept = [row for row in answers if not _has_failed(row)]
        with whole_file(self.journal_path(part)) as unfinished:
            unfinished.write_bytes(_line(digest or "") + b"".join(map(_line, kept)))
        self.path(part).unlink(missing_ok=True)

    def _read_journal(self, part: int) -> tuple[str | None, list[list[Answer]], int]:
        return _read_journal(self.journal_path(part).read_bytes())


class Journal:
    """The answers of a part that is in work, on their way to the disk as soon as they are there.

    One process has it at a time: one that is believed to be dead, and is not, keeps others from it.

    Args:
        wait_seconds: for another process to give it up.

    Attributes:
        answers: by row, those that were there already included.
        num_torn: bytes at its end that are no answers, which a crash has left.

    Raises:
        BatchError: it is of other rows, or another process has it.
    """

    def __init__(self, path: Path, rows_digest: str, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._path, self._file = path, _open_alone(path, wait_seconds)
        content = self._file.read()
        digest, rows, whole = _read_journal(content)
        if digest not in (None, rows_digest):
            self._file.close()
            raise changed_rows(path)
        self.answers = {row[0].row: row for row in rows}
        self.num_torn = len(content) - whole
        self._is_synced = True
        self._file.truncate(whole)
        self._file.seek(whole)
        if digest is None:
            self._file.write(_line(rows_digest))

    def add(self, row: list[Answer]) -> None:
        """The answers to a row; raises OSError where the disk is full, as the others do: what was there stays."""
        self.answers[row[0].row] = row
        self._file.write(_line(row))
        self._is_synced = False

    def flush(self) -> None:
        """Has them survive the end of the process."""
        self._file.flush()

    def sync(self) -> None:
        """Has them survive that of the machine."""
        if not self._is_synced:
            os.fsync(self._file.fileno())
            self._is_synced = True

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        with suppress(OSError):  # of a full disk, which `flush` has told
            self._file.close()


def _open_alone(path: Path, wait_seconds: float) -> BinaryIO:
    """The file, new or not, locked: others that open it so wait until it is closed.

    Raises:
        BatchError: another process has it all the time.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        if not lock_within(file, wait_seconds):
            file.close()
            raise BatchError(
                f"{path}: another process still writes it, which was believed to be dead: end it, and run the job again"
            )
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()  # the other process has ended the part meanwhile


def changed_rows(path: Path) -> BatchError:
    return BatchError(
        f"{path}: its rows of the input are others than when they were answered: give the job the input that it was "
        "begun with, or remove its folder to begin again"
    )


def _has_failed(row: list[Answer]) -> bool:
    return any(answer.error is not None for answer in row)


def _line(content: PartHeader | list[Answer] | str) -> bytes:
    return msgspec.json.encode(content) + b"\n"


def _read_journal(content: bytes) -> tuple[str | None, list[list[Answer]], int]:
    """The digest of its rows, the answers row by row, and where what is whole of it ends."""
    *lines, _ = content.split(b"\n")
    try:
        digest = msgspec.json.decode(lines[0], type=str)
    except (IndexError, msgspec.MsgspecError):
        return None, [], 0
    rows, whole = [], len(lines[0]) + 1
    for line in lines[1:]:
        try:
            row = _LINES.decode(line)
        except msgspec.MsgspecError:
            break
        if not row:
            break
        rows.append(row)
        whole += len(line) + 1
    return digest, rows, whole


def _checksum(content: bytes) -> bytes:
    return msgspec.json.encode(_Checksum(zlib.crc32(content))) + b"\n"
