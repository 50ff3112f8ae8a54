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
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.parallel.layout import Slice
from mindgen.system.atomic import whole_folder
from mindgen.weights.folder import map_weights, warn_of_two_checkpoints
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.network_names import has_own_head, network_weights
from mindgen.weights.placement import Placement, Shapes, strategy_placement, whole_placement
from mindgen.weights.rank_files import (
    SHAPES_KEY,
    STRATEGY_FILE,
    find_rank_folders,
    map_rank_folder,
    rank_folder,
    whole_shapes,
)
from mindgen.weights.strategy_file import Strategy, read_strategy, write_strategy
from mindgen.weights.tensor_names import EMBEDDING, HEAD
from mindgen.weights.weight_format import weight_formats

_COMPARED = 1024  # numbers of each tensor


class ShardedCheckpoint:
    """A checkpoint as it lies on its ranks, or whole on one.

    Attributes:
        placement: of its tensors.
        shapes: of the whole tensors.
    """

    def __init__(self, placement: Placement, ranks: list[dict[str, MappedTensor]], shapes: Shapes) -> None:
        self.placement = placement
        self.shapes = shapes
        self._ranks = ranks

    def dtype(self, name: str) -> str:
        return self._ranks[self._stages_of(name)[0] * self.placement.ranks_per_stage][name].dtype

    def read(self, name: str, region: tuple[Slice, ...], stage: int | None = None) -> np.ndarray:
        """A region of a whole tensor, zeros behind its ends where it is padded: a view if it lies in one piece.

        Args:
            stage: whose copy of it; None is the first that has one.
        """
        stage = self._stages_of(name)[0] if stage is None else stage
        layout = self.placement.stages[stage][name]
        result: np.ndarray | None = None
        seen = set()
        for local_rank in range(layout.num_ranks):
            held = layout.slices_of(local_rank)
            if held in seen:
                continue
            seen.add(held)
            tensor = self._ranks[stage * layout.num_ranks + local_rank][name]
            overlap = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(held, region, strict=True)]
            if any(begin >= end for begin, end in overlap):
                continue
            pairs = list(zip(overlap, held, strict=True))
            part = tensor.data[tuple(slice(begin - place.start, end - place.start) for (begin, end), place in pairs)]
            if part.shape == tuple(each.size for each in region):
                return part
            if result is None:
                result = np.zeros([each.size for each in region], part.dtype)
            pairs = list(zip(overlap, region, strict=True))
            result[tuple(slice(begin - place.start, end - place.start) for (begin, end), place in pairs)] = part
        if result is None:  # nothing but padding, or a tensor without axes
            first = self._ranks[stage * layout.num_ranks][name].data
            return first if first.ndim == 0 else np.zeros([each.size for each in region], first.dtype)
        return result

    def release(self, name: str) -> None:
        """Lets go of the file's pages."""
        for tensors in self._ranks:
            if name in tensors:
                tensors[name].release()

    def digests(self, name: str) -> list[str]:
        """Of the whole tensor, in each stage that has it."""
        digests = []
        for stage in self._stages_of(name):
            whole = self._whole(name, stage)
            digest = hashlib.sha256(f"{self.dtype(name)} {self.shapes[name]} ".encode())
            digest.update(np.ascontiguousarray(whole).data)
            self.release(name)
            digests.append(digest.hexdigest())
        return digests

    def has_own_head(self) -> bool:
        """Whether there is a head beside the embedding, and it is another one."""
        names = self.shapes.keys() & {f"{EMBEDDING}.weight", f"{HEAD}.weight"}
        return has_own_head({name: MappedTensor(self.dtype(name), self._whole(name)) for name in names})

    def _whole(self, name: str, stage: int | None = None) -> np.ndarray:
        return self.read(name, tuple(Slice(0, size, size) for size in self.shapes[name]), stage)

    def _stages_of(self, name: str) -> list[int]:
        return [stage for stage, layouts in enumerate(self.placement.stages) if name in layouts]


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


def open_whole(tensors: dict[str, MappedTensor]) -> ShardedCheckpoint:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return ShardedCheckpoint(whole_placement(shapes), [tensors], shapes)


def open_ranks(folder: Path, strategy: Strategy | None) -> ShardedCheckpoint:
    """The checkpoint of a folder with rank_N in it; without a strategy it is whole in rank_0.

    Raises:
        CheckpointError: a rank is missing or damaged, or does not fit the strategy.
    """
    folders = find_rank_folders(folder)
    if not folders:
        raise CheckpointError(f"{folder} has no rank_0: expected a folder rank_N for each rank")
    if strategy is None:
        return open_whole(_same_on_all_ranks(folders))
    if len(folders) != strategy.num_ranks:
        raise CheckpointError(f"{folder} has {len(folders)} ranks, its strategy {strategy.num_ranks}")
    ranks = [map_rank_folder(each) for each in folders]
    padded: Shapes = {}
    told: Shapes = {}
    for rank in range(0, len(ranks), strategy.ranks_per_stage):
        told |= whole_shapes(folders[rank])
        stage = strategy.of_rank(rank)
        for name, tensor in ranks[rank].items():
            padded[name] = stage[name].layout_of_slices(tensor.shape).shape if name in stage else tensor.shape
    placement = strategy_placement(padded, strategy)
    for rank, tensors in enumerate(ranks):
        _check_rank(folders[rank], tensors, placement, rank)
    return ShardedCheckpoint(placement, ranks, {name: told.get(name, shape) for name, shape in padded.items()})


def open_source(folder: Path, strategy: Path | None) -> Callable[[], ShardedCheckpoint]:
    """What opens a Hugging Face folder, or one with rank_N in it.

    Args:
        strategy: a strategy file or a folder of them; None takes the folder's own, if it has one.

    Raises:
        CheckpointError: the strategy is damaged.
    """
    if not find_rank_folders(folder):
        warn_of_two_checkpoints(folder)
        return partial(_open_model, folder)
    if strategy is None and (folder / STRATEGY_FILE).is_file():
        strategy = folder / STRATEGY_FILE
    return partial(open_ranks, folder, None if strategy is None else read_strategy(strategy))


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


def _same_on_all_ranks(folders: list[Path]) -> dict[str, MappedTensor]:
    """The tensors of replicas; slices begin with other numbers on each rank, but for a few."""
    first, *others = [map_rank_folder(folder) for folder in folders]
    for folder, tensors in zip(folders[1:], others, strict=True):
        for name, tensor in first.items():
            if name not in tensors or _beginning(tensor) != _beginning(tensors[name]):
                raise CheckpointError(
                    f"{folders[0]} and {folder} differ in {name!r}, and there is no {STRATEGY_FILE} that says how they "
                    "are sharded: name it"
                )
    return first


def _beginning(tensor: MappedTensor) -> bytes:
    return tensor.data.reshape(-1)[:_COMPARED].tobytes()


def _check_rank(folder: Path, tensors: dict[str, MappedTensor], placement: Placement, rank: int) -> None:
    layouts, _ = placement.of_rank(rank)
    if tensors.keys() != layouts.keys():
        names = sorted(tensors.keys() ^ layouts.keys())
        raise CheckpointError(f"{folder} and the strategy differ in {len(names)} tensors, {names[0]!r} for instance")
    for name, tensor in tensors.items():
        if tensor.shape != layouts[name].slice_shape:
            raise CheckpointError(f"{folder}: {name!r} has shape {tensor.shape}, expected {layouts[name].slice_shape}")


def _open_model(folder: Path) -> ShardedCheckpoint:
    return open_whole(network_weights(folder, map_weights(folder)))
