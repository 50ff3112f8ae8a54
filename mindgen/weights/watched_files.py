"""Files that a model is served from while they are mapped: whoever writes into one changes its weights."""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from weakref import finalize


class WatchedFiles:
    """Are open from now on, so that a file that is put in the place of one is none of them."""

    def __init__(self, paths: Iterable[Path]) -> None:
        with ExitStack() as opened:
            files = {path: opened.enter_context(path.open("rb")) for path in paths}
            finalize(self, opened.pop_all().close)
        self._states = [(path, file.fileno(), _state(file.fileno())) for path, file in files.items()]

    def changed(self) -> Path | None:
        """One that has been written since; None if all are as they were."""
        for path, descriptor, state in self._states:
            if _state(descriptor) != state:
                return path
        return None


def _state(descriptor: int) -> tuple[int, int]:
    """Size, and nanoseconds of the last change of the content."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns
