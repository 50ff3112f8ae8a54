"""The files that an input names."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from mindgen.batch.formats.open_file import INPUT_ENDINGS, kind_of
from mindgen.batch.formats.rows_file import reading
from mindgen.errors import ConfigError, DataError


def find_input_files(inputs: Sequence[str], output: Path | None = None) -> list[Path]:
    """The files, in the natural order of their names: part-2 before part-10.

    Args:
        output: a file that folders and patterns do not mean, nor what is in the folder of its job.

    Raises:
        ConfigError: a name or pattern says no file, or one file is named twice.
        DataError: a folder cannot be read, or has no file of rows.
    """
    own = [] if output is None else [output.resolve(), output.parent.resolve() / f"{output.name}.job"]
    paths = []
    for name in inputs:
        with reading(Path(name)):
            paths.extend(_named(name, own))
    if not paths:
        raise ConfigError("no input is named")
    real_paths: set[Path] = set()
    for path in paths:
        if path.resolve() in real_paths:
            raise ConfigError(f"{path} is named twice in the input")
        real_paths.add(path.resolve())
    return sorted(paths, key=_natural_order)


def _named(name: str, own: Sequence[Path]) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path, own)
    if path.exists():
        return [path]
    if glob.has_magic(name):
        found = [Path(match) for match in glob.glob(str(path), recursive=True)]
        files = [match for match in found if match.is_file() and not _is_of(match, own)]
        if not files:
            raise ConfigError(f"no file matches {name}")
        return files
    raise ConfigError(f"there is no file or folder {name}")


def _is_of(path: Path, own: Sequence[Path]) -> bool:
    real = path.resolve() if own else path
    return any(real == each or each in real.parents for each in own)


def _in_folder(folder: Path, own: Sequence[Path]) -> list[Path]:
    """Its files of rows; others, like a README, and those that are hidden are none."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_"))]
    files = [path for path in files if kind_of(path) is not None and not _is_of(path, own)]
    if not files:
        raise DataError(
            f"the folder {folder} has no file that ends in {', '.join(INPUT_ENDINGS)}; "
            f"for folders in it, name a pattern like {folder / '*' / '*.parquet'}"
        )
    return files


def _natural_order(path: Path) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", str(path))]
