"""Folders like Hugging Face's that are made of a model's file, in mindgen's cache: once, and whole or not at all."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mindgen.errors import ModelError
from mindgen.system.environment import cache_folder


def made_folder(kind: str, file: Path, details: str, make: Callable[[], Mapping[str, bytes | Path]]) -> Path:
    """The folder for this state of the file, made if it is not there.

    Args:
        kind: below which it lies in the cache.
        details: whatever else its content depends on.
        make: its files by name: their contents, or what they are links to.

    Raises:
        ModelError: it cannot be written; or what make raises.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    identity = f"{file} {status.st_size} {status.st_mtime_ns} {details}"
    folder = cache_folder() / kind / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    files = make()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
        try:
            for name, content in files.items():
                if isinstance(content, Path):
                    (unfinished / name).symlink_to(content.absolute())
                else:
                    (unfinished / name).write_bytes(content)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # else another process has made it meanwhile
            raise ModelError(f"cannot write {folder}: {error.strerror}: set MINDGEN_CACHE to another folder") from error
    return folder
