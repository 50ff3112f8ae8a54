"""Folders like Hugging Face's that are made of a model's file, in mindgen's cache: once, and whole or not at all."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from mindgen.errors import ModelError
from mindgen.system.atomic import shared_folder
from mindgen.system.environment import cache_folder


def made_folder(
    kind: str, file: Path, details: str, links: Mapping[str, Path], make: Callable[[], Mapping[str, bytes]]
) -> Path:
    """The folder for this state of the file, made if it is not there.

    Args:
        kind: below which it lies in the cache.
        details: whatever else its content depends on.
        links: of its files those that are links, by name.
        make: the contents of the others.

    Raises:
        ModelError: a file cannot be read, or the folder not be written; or what make raises.
    """
    links = {name: target.resolve() for name, target in links.items()}
    states = [_state(each) for each in (file.resolve(), *links.values())]
    identity = json.dumps([details, states, list(links)])
    folder = cache_folder() / kind / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    files = make()
    try:
        with shared_folder(folder) as unfinished:
            for name, target in links.items():
                (unfinished / name).symlink_to(target)
            for name, content in files.items():
                (unfinished / name).write_bytes(content)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror}: set MINDGEN_CACHE to another folder") from error
    return folder


def _state(file: Path) -> tuple[str, int, int]:
    """A whole path: one as it was typed is another file's in another folder, and a link may come to lead elsewhere."""
    try:
        status = file.stat()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    return str(file), status.st_size, status.st_mtime_ns
