"""A folder that is made piece by piece, in which the work goes on after its process was killed."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mindgen.system.file_lock import lock_within

_JOURNAL, _MADE = "progress", "made"


class Journal:
    """Which pieces are there already, each with its digest, in the order in which they were made."""

    def __init__(self, file: TextIO, identity: str) -> None:
        self._file, self._identity = file, identity
        file.seek(0)
        first, *others = [*file] or [""]
        self.is_of_this = first == f"{identity}\n"
        self.entries: list[tuple[str, str]] = []
        if self.is_of_this:
            self.entries = [_entry(line) for line in others if line.endswith("\n")]  # the last one may be cut short

    def keep(self, count: int) -> None:
        """Forgets all but the first pieces."""
        self.entries = self.entries[:count]
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{self._identity}\n" + "".join(map(_line, self.entries)))
        self._file.flush()

    def note(self, name: str, digest: str) -> None:
        """One more piece is there."""
        self.entries.append((name, digest))
        self._file.write(_line((name, digest)))
        self._file.flush()


@contextmanager
def resumable_folder(path: Path, identity: str) -> Iterator[tuple[Path, Journal]]:
    """The folder in which `path` is to be made, and the journal of what a killed process has left there.

    What is in the folder is nobody's until it is moved away. An error removes it all; only a process that was killed or
    interrupted leaves it.

    Args:
        identity: a line with all that the work depends on; what was left of other work is removed.

    Raises:
        OSError: another process makes the same; or there is no room.
    """
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.mkdir(parents=True, exist_ok=True)
    with (unfinished / _JOURNAL).open("a+", encoding="utf-8", errors="replace") as file:
        if not lock_within(file, 0):
            raise OSError(f"another process is writing {path}: wait for it, or name another one")
        try:
            journal, made = Journal(file, identity), unfinished / _MADE
            if not journal.is_of_this:
                shutil.rmtree(made, ignore_errors=True)
                journal.keep(0)
            made.mkdir(exist_ok=True)
            yield made, journal
        except Exception:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(unfinished, ignore_errors=True)


def _line(entry: tuple[str, str]) -> str:
    return json.dumps(entry) + "\n"


def _entry(line: str) -> tuple[str, str]:
    """Of a line that is none, no piece."""
    try:
        name, digest = json.loads(line)
    except (ValueError, TypeError):
        return "", ""
    return name, digest
