"""The log of a rank: shown on the terminal as it grows, and its last lines."""

import codecs
from pathlib import Path
from typing import TextIO

_TAIL_BYTES = 20_000


class LogTail:
    """Shows what a process adds to its log; every line begins with a prefix, and a part of a line shows at once."""

    def __init__(self, path: Path, prefix: str, terminal: TextIO) -> None:
        self._file = path.open("rb")
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._prefix = prefix
        self._terminal = terminal
        self._is_line_open = False

    def show(self, is_last: bool = False) -> None:
        """What is new since the last call; the last one ends the line, and closes the log."""
        text = self._decoder.decode(self._file.read(), is_last)
        for line in text.splitlines(keepends=True):
            self._terminal.write(line if self._is_line_open else self._prefix + line)
            self._is_line_open = not line.endswith("\n")
        if is_last:
            self._terminal.write("\n" if self._is_line_open else "")
            self._is_line_open = False
            self._file.close()
        if text or is_last:
            self._terminal.flush()


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, as far as it can be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
