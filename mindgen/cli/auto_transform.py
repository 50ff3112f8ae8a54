"""MindFormers' auto_trans_ckpt: a checkpoint of any sharding, and adapters, become slices for the ranks there are."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindgen.adapters.registry import AdapterRegistry
from mindgen.adapters.slice_files import slice_adapters
from mindgen.errors import CheckpointError, ModelError
from mindgen.models.registry import declared_layouts
from mindgen.weights.architecture import read_model_config
from mindgen.weights.config_file import CONFIG_FILE
from mindgen.weights.folder import weight_paths
from mindgen.weights.model_config import settle_head
from mindgen.weights.placement import declared_placement
from mindgen.weights.rank_files import find_rank_folders, rank_files
from mindgen.weights.reshard import Target, transform
from mindgen.weights.sharded_checkpoint import open_source

TRANSFORMED = Path("output", "transform_ckpt")
_ADAPTERS = TRANSFORMED / "slora"
_STAMP = "source.json"


def transform_for_ranks(model: Path, checkpoint: Path, strategy: Path | None, num_ranks: int, num_stages: int) -> Path:
    """The checkpoint, sharded for so many pipeline stages of so many ranks each, in output/transform_ckpt.

    What is there already is taken if it was made of the same files; of several processes one makes it.

    Raises:
        ModelError, CheckpointError: the checkpoint or its strategy cannot be read, or the folder holds something else.
    """
    if not checkpoint.exists():
        raise ModelError(f"no such checkpoint: {checkpoint}")
    source = open_source(checkpoint, strategy, model)
    stamp = _stamp(model, checkpoint, strategy, num_ranks, num_stages)
    with _one_at_a_time():
        written = TRANSFORMED / _STAMP
        if written.is_file() and written.read_text(encoding="utf-8") == stamp:
            return TRANSFORMED
        others = TRANSFORMED.is_dir() and [each for each in TRANSFORMED.iterdir() if each != _ADAPTERS]
        if others and not written.is_file():
            raise CheckpointError(f"{TRANSFORMED} is there, and auto_trans_ckpt has not made it: remove or rename it")
        shutil.rmtree(TRANSFORMED, ignore_errors=True)
        opened = source()
        config = settle_head(read_model_config(model), checkpoint, opened.has_own_head())
        placement = declared_placement(opened.shapes, declared_layouts(config, num_ranks, num_stages), num_ranks)
        transform(source, placement, Target(TRANSFORMED))
        written.write_text(stamp, encoding="utf-8")
    return TRANSFORMED


def slice_for_ranks(model: Path, registry: AdapterRegistry, num_ranks: int) -> Path:
    """The slices of all adapters for so many tensor-parallel ranks, in output/transform_ckpt/slora.

    Raises:
        ModelError, AdapterError: the model cannot be served, or an adapter does not fit it.
    """
    (layouts,) = declared_layouts(read_model_config(model), num_ranks)
    with _one_at_a_time():
        slice_adapters(_ADAPTERS, registry, layouts)
    return _ADAPTERS


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of all processes that transform here."""
    TRANSFORMED.parent.mkdir(parents=True, exist_ok=True)
    with TRANSFORMED.with_name(f".{TRANSFORMED.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stamp(model: Path, checkpoint: Path, strategy: Path | None, num_ranks: int, num_stages: int) -> str:
    files = [file for folder in find_rank_folders(checkpoint) for file in rank_files(folder)]
    if not files:
        files = [checkpoint] if checkpoint.is_file() else weight_paths(checkpoint)
    files += [model / CONFIG_FILE] + ([] if strategy is None else [strategy])
    described = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps({"num_ranks": num_ranks, "num_stages": num_stages, "files": described})
