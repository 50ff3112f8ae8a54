"""A checkpoint as it lies on its ranks, or whole on one, under the names that it has or the network's."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.parallel.layout import Slice
from mindgen.weights.folder import warn_of_two_checkpoints
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.mindformers_fused import separate_fused
from mindgen.weights.network_names import has_own_head, network_weights
from mindgen.weights.placement import Placement, Shapes, strategy_placement, whole_placement
from mindgen.weights.rank_files import STRATEGY_FILE, find_rank_folders, map_rank_folder, whole_shapes
from mindgen.weights.strategy_file import Strategy, read_strategy
from mindgen.weights.tensor_names import EMBEDDING, HEAD
from mindgen.weights.weight_files import WeightFiles

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

    def renamed(self, model: Path) -> "ShardedCheckpoint":
        """Under the network's names; as it is where translating takes more than names, which slices do not allow."""
        names: dict[str, str] = {}
        for name in self.shapes:
            tensor = self._ranks[self._stages_of(name)[0] * self.placement.ranks_per_stage][name]
            own = list(network_weights(model, {name: tensor}).items())
            if len(own) != 1 or own[0][1] is not tensor:
                return self
            names[name] = own[0][0]
        stages = tuple({names[name]: each for name, each in stage.items()} for stage in self.placement.stages)
        ranks = [{names[name]: tensor for name, tensor in tensors.items()} for tensors in self._ranks]
        shapes = {names[name]: shape for name, shape in self.shapes.items()}
        return ShardedCheckpoint(Placement(self.placement.ranks_per_stage, stages), ranks, shapes)

    def _whole(self, name: str, stage: int | None = None) -> np.ndarray:
        return self.read(name, tuple(Slice(0, size, size) for size in self.shapes[name]), stage)

    def _stages_of(self, name: str) -> list[int]:
        return [stage for stage, layouts in enumerate(self.placement.stages) if name in layouts]


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


def open_source(folder: Path, strategy: Path | None, model: Path | None = None) -> Callable[[], ShardedCheckpoint]:
    """What opens a Hugging Face folder, or one with rank_N in it, or a file.

    Args:
        strategy: a strategy file or a folder of them; None takes the folder's own, if it has one.
        model: the folder of the configuration, by which tensors get the network's names; None leaves those of ranks.

    Raises:
        CheckpointError: the strategy is damaged.
    """
    if not find_rank_folders(folder):
        if folder.is_dir():
            warn_of_two_checkpoints(folder)
        return partial(_open_model, folder, folder if model is None else model)
    if strategy is None and (folder / STRATEGY_FILE).is_file():
        strategy = folder / STRATEGY_FILE
    return partial(_open_named, folder, None if strategy is None else read_strategy(strategy), model)


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


def _open_model(folder: Path, model: Path) -> ShardedCheckpoint:
    return open_whole(network_weights(model, WeightFiles(model, (folder,)).map(0)))


def _open_named(folder: Path, strategy: Strategy | None, model: Path | None) -> ShardedCheckpoint:
    if model is not None and strategy is None:
        whole = _same_on_all_ranks(find_rank_folders(folder))
        return open_whole(network_weights(model, separate_fused(model, whole)))
    ranks = open_ranks(folder, strategy)
    return ranks if model is None else ranks.renamed(model)
