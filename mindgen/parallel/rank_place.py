"""Where a process stands among those that share a network: its tensor-parallel group, its stage, the ways between.

Rank = stage * ranks of a stage + rank in the group. Hidden states, which all ranks of a group have, go from each rank
to that of the same number in the next stage; the logits go from the last stage's first rank to rank 0.
"""

import os
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mindgen.kernels import dtypes
from mindgen.kernels.library import KernelLibrary
from mindgen.parallel.array_pipe import ArrayReader, ArrayWriter, open_pipe
from mindgen.parallel.group import NodeLinks, ProcessGroup, shared_memory
from mindgen.parallel.stage import PipelineShape, Stage


@dataclass(frozen=True, slots=True)
class StagePorts:
    """The ends of pipes that a rank of several stages has.

    Attributes:
        source: where hidden states come from; None in the first stage.
        target: where its own go, or the logits; None where nobody waits for them.
        results: where rank 0 gets the logits.
    """

    source: ArrayReader | None
    target: ArrayWriter | None
    results: ArrayReader | None


@dataclass(frozen=True, slots=True)
class RankPlace:
    """One rank; ports are None where there is only one stage."""

    group: ProcessGroup
    stage: Stage
    ports: StagePorts | None

    @property
    def rank(self) -> int:
        return self.stage.index * self.group.size + self.group.rank

    def abort(self, reason: str) -> None:
        """Ends what this rank does together with others, now and from now on, with this error."""
        self.group.abort(reason)
        if self.ports is not None and self.ports.results is not None:
            self.ports.results.close()


class PlaceFiles:
    """The descriptors of all that the ranks meet through.

    Rank 0 keeps them all, so that no rank's end is noticed by another: it says itself who has ended.
    """

    def __init__(self, kernels: KernelLibrary, shape: PipelineShape) -> None:
        self._shape = shape
        self._groups = [shared_memory(kernels, shape.ranks_per_stage) for _ in range(shape.num_stages)]
        self._sources = {rank: open_pipe(shape.hidden_bytes) for rank in range(shape.ranks_per_stage, shape.num_ranks)}
        self._results = open_pipe(shape.logits_bytes)
        self._files = [*self._groups, *chain(*self._sources.values()), *self._results]

    def of_rank(self, rank: int) -> list[int]:
        """Those that a rank needs, as open_place takes them."""
        stage, own = self._shape.place_of(rank)
        files = [self._groups[stage.index]]
        if self._shape.num_stages == 1:
            return files
        if not stage.is_first:
            files += [self._sources[rank].memory, self._sources[rank].reader]
        if not stage.is_last:
            pipe = self._sources[rank + self._shape.ranks_per_stage]
            files += [pipe.memory, pipe.writer]
        elif own == 0:
            files += [self._results.memory, self._results.writer]
        if rank == 0:
            files += [self._results.memory, self._results.reader]
        return files

    def close(self) -> None:
        files, self._files = self._files, []
        for descriptor in files:
            os.close(descriptor)


def open_place(
    kernels: KernelLibrary, shape: PipelineShape, rank: int, files: list[int], links: NodeLinks | None = None
) -> RankPlace:
    """The place of a rank; the descriptors may be closed afterwards.

    Args:
        links: where a stage, which then is the only one, lies on several machines.
    """
    stage, own = shape.place_of(rank)
    group = ProcessGroup(kernels, files[0], own, shape.ranks_per_stage, links)
    if shape.num_stages == 1:
        return RankPlace(group, stage, None)
    pairs = iter(zip(files[1::2], files[2::2], strict=True))
    hidden = dtypes.STORAGE[shape.dtype]
    source = None if stage.is_first else ArrayReader(*next(pairs), hidden)
    target = None
    if not stage.is_last or own == 0:
        target = ArrayWriter(*next(pairs), np.float32 if stage.is_last else hidden)
    results = ArrayReader(*next(pairs), np.float32) if rank == 0 else None
    return RankPlace(group, stage, StagePorts(source, target, results))
