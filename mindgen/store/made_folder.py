"""Folders like Hugging Face's that are made of a model's file, in mindgen's cache: once, and whole or not at all."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from mindgen.errors import ModelError
from mindgen.system.atomic import shared_folder
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
        with shared_folder(folder) as unfinished:
            for name, content in files.items():
                if isinstance(content, Path):
                    (unfinished / name).symlink_to(content.absolute())
                else:
                    (unfinished / name).write_bytes(content)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror}: set MINDGEN_CACHE to another folder") from error
    return folder
