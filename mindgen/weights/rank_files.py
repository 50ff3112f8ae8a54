"""Checkpoints of several ranks: a folder rank_N for each, with a checkpoint in it."""

import json
import re
from pathlib import Path

from mindgen.errors import CheckpointError
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import format_of, map_file, weight_formats

# In the metadata of a rank's file: the shapes of the whole tensors, which a padded slice does not tell.
SHAPES_KEY = "mindgen.shapes"
STRATEGY_FILE = "strategy.ckpt"  # beside the ranks' folders, where there are several
_PART = re.compile(r"(.*-)\d+-of-\d+\.safetensors")


def rank_folder(folder: Path, rank: int) -> Path:
    return folder / f"rank_{rank}"


def find_rank_folders(folder: Path) -> list[Path]:
    """The folders rank_0, rank_1 and so on; none if there is not even one.

    Raises:
        CheckpointError: one is missing between others.
    """
    found = {int(each.name[5:]) for each in folder.glob("rank_*") if re.fullmatch(r"rank_\d+", each.name)}
    missing = sorted(set(range(max(found, default=-1) + 1)) - found)
    if missing:
        raise CheckpointError(
            f"{folder} has no rank_{missing[0]}, but rank_{max(found)}: a rank's checkpoint is missing"
        )
    return [rank_folder(folder, rank) for rank in range(len(found))]


def map_rank_folder(folder: Path) -> dict[str, MappedTensor]:
    """All tensors of a rank, mapped: of its newest checkpoint, which may be in several parts.

    Raises:
        CheckpointError: there is none, one is damaged, or two name the same tensor.
    """
    tensors: dict[str, MappedTensor] = {}
    for file in rank_files(folder):
        part = map_file(file)
        repeated = sorted(tensors.keys() & part.keys())
        if repeated:
            raise CheckpointError(f"{folder}: {repeated[0]!r} is in {file.name} and in another file; keep one of them")
        tensors |= part
    return tensors


def rank_files(folder: Path) -> list[Path]:
    """The files that hold a rank's tensors: of its folder, or the file itself.

    Raises:
        CheckpointError: there is none.
    """
    if folder.is_file() and folder.suffix in _suffixes():
        return [folder]
    files = sorted(each for each in folder.glob("*") if each.suffix in _suffixes()) if folder.is_dir() else []
    if not files:
        raise CheckpointError(f"{folder} has no checkpoint: expected a file ending in {' or '.join(_suffixes())}")
    # As MindFormers does: training leaves one for every so many steps.
    newest = max(files, key=lambda each: (each.stat().st_mtime_ns, each.name))
    part = _PART.fullmatch(newest.name)
    return [newest] if part is None else [each for each in files if each.name.startswith(part[1])]


def whole_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of whole tensors that a rank's files tell of.

    Raises:
        CheckpointError: what they tell is malformed.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in rank_files(folder):
        read_metadata = format_of(file).read_metadata
        text = None if read_metadata is None else read_metadata(file).get(SHAPES_KEY)
        if text is None:
            continue
        try:
            told = {str(name): tuple(int(size) for size in shape) for name, shape in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file}: {SHAPES_KEY} in its metadata is malformed") from error
        shapes |= told
    return shapes


def _suffixes() -> list[str]:
    """Of what ranks are saved in: tools leave .bin files of other kinds beside a checkpoint."""
    known = weight_formats().items()
    return [suffix for suffix, each in known if each.layout is not None and not each.is_whole_model]
