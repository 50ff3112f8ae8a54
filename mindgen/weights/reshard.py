"""Checkpoints from one placement to another: whole to sharded, sharded to whole, sharded to sharded.

One tensor's slice is in memory at a time. A folder appears under its name only when it is complete, read back and
compared by digest.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from mindgen.errors import CheckpointError
from mindgen.system.atomic import whole_folder
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.placement import Placement
from mindgen.weights.rank_files import (
    SHAPES_KEY,
    STRATEGY_FILE,
    map_rank_folder,
    rank_folder,
)
from mindgen.weights.sharded_checkpoint import ShardedCheckpoint
from mindgen.weights.strategy_file import Strategy, write_strategy
from mindgen.weights.weight_format import weight_formats


@dataclass(frozen=True, slots=True)
class Transformed:
    """What was written.

    Attributes:
        digest: of all tensors and their names; the same for every placement of the same checkpoint.
    """

    num_ranks: int
    num_tensors: int
    num_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Target:
    """What to write: the files rank_N/<prefix>N<suffix> in a folder that is new."""

    folder: Path
    prefix: str = "checkpoint_"
    suffix: str = ".safetensors"

    def file(self, folder: Path, rank: int) -> Path:
        return rank_folder(folder, rank) / f"{self.prefix}{rank}{self.suffix}"


def transform(
    source: Callable[[], ShardedCheckpoint],
    placement: Placement,
    target: Target,
    num_processes: int = 1,
    strategy: Strategy | None = None,
) -> Transformed:
    """Writes a checkpoint in another placement.

    Args:
        source: opens it; every process does.
        strategy: to be kept beside the ranks.

    Raises:
        CheckpointError: the folder is there already, or what was written is not what was read.
        OSError: the disk is full. Nothing is left then.
    """
    padded = placement.padded()
    if padded and weight_formats()[target.suffix].read_metadata is None:
        raise CheckpointError(
            f"{min(padded)!r} does not divide by the ranks: write safetensors, which can tell its size"
        )
    if target.folder.exists():
        raise CheckpointError(f"{target.folder} is there already; name a new folder, or remove it")
    ranks = range(placement.num_ranks)
    try:
        with whole_folder(target.folder) as unfinished:
            if num_processes == 1:
                sizes = [write_rank(source, placement, target, unfinished, rank) for rank in ranks]
            else:
                with ProcessPoolExecutor(num_processes, get_context("spawn")) as pool:
                    tasks = [pool.submit(write_rank, source, placement, target, unfinished, rank) for rank in ranks]
                    sizes = [task.result() for task in tasks]
            digest = _verify(source(), placement, unfinished)
            if strategy is not None:
                write_strategy(unfinished / STRATEGY_FILE, strategy)
    except BrokenProcessPool as error:
        raise CheckpointError("a process that wrote a rank was killed, as the system does without memory") from error
    return Transformed(placement.num_ranks, len(placement.shapes), sum(sizes), digest)


def write_rank(
    source: Callable[[], ShardedCheckpoint], placement: Placement, target: Target, folder: Path, rank: int
) -> int:
    """Writes one rank's file; returns its size."""
    checkpoint = source()
    layouts, local_rank = placement.of_rank(rank)
    path = target.file(folder, rank)
    path.parent.mkdir(parents=True, exist_ok=True)

    def parts() -> Iterator[tuple[str, MappedTensor]]:
        for name, layout in layouts.items():
            yield name, MappedTensor(checkpoint.dtype(name), checkpoint.read(name, layout.slices_of(local_rank)))
            checkpoint.release(name)

    kinds = {name: (checkpoint.dtype(name), layout.slice_shape) for name, layout in layouts.items()}
    padded = placement.padded()
    metadata = {SHAPES_KEY: json.dumps(padded)} if padded else {}
    weight_formats()[target.suffix].write(path, kinds, parts(), metadata)
    return path.stat().st_size


def _verify(source: ShardedCheckpoint, placement: Placement, folder: Path) -> str:
    ranks = [map_rank_folder(rank_folder(folder, rank)) for rank in range(placement.num_ranks)]
    written = ShardedCheckpoint(placement, ranks, placement.shapes)
    total = hashlib.sha256()
    for name in sorted(source.shapes):
        digest = source.digests(name)[0]
        if set(written.digests(name)) != {digest}:
            raise CheckpointError(f"{name!r} as written is not what was read: is the disk in order?")
        total.update(f"{name} {digest}\n".encode())
    return total.hexdigest()
