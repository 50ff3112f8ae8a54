"""Files and folders that are there whole, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp, mkstemp


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write the file, which takes its place when this is left without an error; on disk, not only on its way.

    Raises:
        OSError: the disk is full, or the folder cannot be written to. Nothing is left then.
    """
    descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    unfinished = Path(name)
    try:
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on disk, not only on their way."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same of a folder, which must be a new one; what an earlier try has left is removed."""
    unfinished = path.with_name(f".{path.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """The same of a folder that several processes may make at once, with one content: the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(dir=path.parent, prefix=".making-"))
    try:
        yield unfinished
        if not path.is_dir():
            unfinished.rename(path)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
