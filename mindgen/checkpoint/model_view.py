"""A checkpoint without a configuration, seen as a Hugging Face folder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindgen.checkpoint.hf import MINDSPORE_FILE, SINGLE_FILE
from mindgen.errors import ModelError

_NAMES = {".safetensors": SINGLE_FILE, ".ckpt": MINDSPORE_FILE}


def find_checkpoint(path: Path, rank: int = 0) -> Path:
    """The file itself, or the newest checkpoint in the folder's rank_N, or in the folder.

    Raises:
        ModelError: there is none.
    """
    if path.is_file() and path.suffix in _NAMES:
        return path
    folder = path / f"rank_{rank}"
    folder = folder if folder.is_dir() else path
    found = [file for suffix in _NAMES for file in folder.glob(f"*{suffix}")]
    if not found:
        raise ModelError(f"{path}: neither config.json, nor rank_{rank}/*.ckpt or rank_{rank}/*.safetensors")
    return max(found, key=lambda file: file.stat().st_mtime)


@contextmanager
def as_model_folder(checkpoint: Path, model: Path) -> Iterator[Path]:
    """A folder of links to the checkpoint, and to the configuration and tokenizer of a model's folder."""
    with tempfile.TemporaryDirectory(prefix="mindgen-") as scratch:
        folder = Path(scratch)
        for file in model.iterdir():
            if file.is_file() and not file.name.endswith((*_NAMES, ".safetensors.index.json")):
                (folder / file.name).symlink_to(file.resolve())
        (folder / _NAMES[checkpoint.suffix]).symlink_to(checkpoint.resolve())
        yield folder
