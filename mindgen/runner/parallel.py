"""The network on several ranks: rank 0's part here, the others in worker processes that make the same steps."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, cast

from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slice_files import take_slices
from mindgen.errors import ConfigError
from mindgen.kernels import backend, plugin
from mindgen.parallel.group import NodeLinks
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.parallel.rank_place import PlaceFiles, open_place
from mindgen.parallel.stage import PipelineShape
from mindgen.parallel.worker_pool import WorkerPool, wait_for
from mindgen.runner.local_ranks import prepare_ranks
from mindgen.runner.open import open_runner
from mindgen.runner.spec import (
    RUNNER_CALLS,
    AdapterContent,
    PackedAdapter,
    RankHost,
    RankReport,
    Runner,
    RunnerSpec,
)
from mindgen.system import environment
from mindgen.system.cores import threads_per_share
from mindgen.weights.checksum import joined_checksum
from mindgen.weights.tensor_check import refuse_unknown
from mindgen.weights.weight_files import WeightFiles


def make_runner(
    spec: RunnerSpec, weights: WeightFiles, nodes: OtherNodes | None = None, worker_timeout: float = 0.0
) -> Runner:
    """Here, or on as many ranks as the spec says, some of them on other machines.

    Args:
        nodes: the other machines that have some of them; None if all are here.
        worker_timeout: as in EngineConfig.
    """
    if spec.shape.num_ranks == 1:
        return open_runner(spec, weights)
    return cast(Runner, ParallelRunner(spec, weights, nodes, worker_timeout))


@dataclass(frozen=True, slots=True)
class SlicedAdapter:
    """An adapter of which each rank has its part: rank 0's, and what the others know it by."""

    packed: PackedAdapter
    content: AdapterContent

    @property
    def num_bytes(self) -> int:
        return self.packed.num_bytes


class ParallelRunner:
    """As a Runner, whose remote methods are done by all ranks.

    Attributes:
        report: of what all ranks have.
        reports: of what each has.

    Raises:
        WorkerError: a rank has ended.
    """

    def __init__(self, spec: RunnerSpec, weights: WeightFiles, nodes: OtherNodes | None, worker_timeout: float) -> None:
        kernels, size = plugin.load(), spec.shape.num_ranks
        local = range(size) if nodes is None else nodes.placement.workers(0)
        links = None if nodes is None else NodeLinks(0, nodes.placement.num_nodes, nodes.sockets)
        self._workers = _start_workers(spec.shape, local, nodes)
        self._files = PlaceFiles(kernels, spec.shape)
        self._place = open_place(kernels, spec.shape, 0, self._files.of_rank(0), links)
        self._slices = spec.adapter_slices
        try:
            # Stages work one after the other: each has all threads.
            sharing = min(len(local), spec.shape.ranks_per_stage)
            threads = threads_per_share(spec.num_threads, sharing)
            host = RankHost(weights, {}, None, threads, 0, size // len(local))
            prepare_ranks(self._workers, local[1:], self._files.of_rank, host, sharing)
            if nodes is not None:
                nodes.close_sockets()
            place = self._place
            self._workers.watch(lambda _, why: place.abort(why), worker_timeout)
            if spec.device == "CPU":
                backend.available(spec.executor)  # compiled by one, before the others would have to wait for it
            ready: list[Future[RankReport]] = self._workers.call("set_up", spec, result=RankReport)
            self._own = open_runner(replace(spec, num_threads=threads), weights, self._place)
            self.reports = [self._own.report, *wait_for(ready)]
            self.report = _joined(self.reports)
            refuse_unknown(spec.model_config.architecture, self.report.unknown)
            self._workers.tell("set_modules", self.report.modules)
        except BaseException as error:
            cause = self._workers.error
            self.close()
            if cause is not None:
                raise cause from error
            raise
        self.base_model = self._own.base_model

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A Runner's remote method."""
        if name not in RUNNER_CALLS:
            raise AttributeError(name)
        return lambda *arguments: self._on_all_ranks(name, arguments, arguments)

    def pack_adapter(self, adapter: AdapterWeights) -> SlicedAdapter:
        """As a Runner's; every rank reads the adapter itself, and has read the same."""
        content = AdapterContent(adapter.adapter_id, adapter.folder, adapter.digest)
        read: list[Future[None]] = self._workers.call("read_adapter", content)
        packed = self._own.pack_adapter(take_slices(adapter, self._slices, self._place.group.size, 0))
        wait_for(read)
        return SlicedAdapter(packed, content)

    def write_adapter(self, slot: int, adapter: SlicedAdapter) -> None:
        self._on_all_ranks("write_adapter", (slot, adapter.packed), (slot, adapter.content))

    def close(self) -> None:
        self._workers.close()
        self._place.group.leave()
        self._files.close()

    def _on_all_ranks(self, name: str, arguments: tuple[Any, ...], of_others: tuple[Any, ...]) -> Any:
        """What rank 0's method gives, or that joined with the others'; what ends one rank ends all.

        Ctrl-C waits, lest some do it and others do not.
        """
        call = RUNNER_CALLS.get(name)
        with environment.deferred_interrupt() as interrupted:
            try:
                answers: list[Future[Any]] = []
                if call is None or call.join is None:
                    self._workers.tell(name, *of_others)
                else:
                    answers = self._workers.call(name, *of_others, result=call.result_type)
                result = getattr(self._own, name)(*arguments)
                if call is not None and call.join is not None:
                    result = call.join([result, *wait_for(answers)])
            except BaseException as error:
                self._place.abort(f"rank 0: {error}")
                if self._workers.error is not None:
                    raise self._workers.error from error
                raise
        if interrupted():
            raise KeyboardInterrupt
        return result


def _joined(reports: list[RankReport]) -> RankReport:
    modules = {name: sizes for report in reports for name, sizes in report.modules.items()}
    weights: dict[str, int] = {}
    for report in reports:
        for name, size in report.weights.items():
            weights[name] = weights.get(name, 0) + size
    unknown = {name for report in reports for name in report.unknown} - weights.keys()
    checksums: dict[str, list[str]] = {}
    for report in reports:
        for name, checksum in report.checksums.items():
            checksums.setdefault(name, []).append(checksum)
    return RankReport(
        modules=modules,
        weights=weights,
        unknown=sorted(unknown),
        cache_bytes=sum(report.cache_bytes for report in reports),
        shapes={name: shape for report in reports for name, shape in report.shapes.items()},
        checksums={name: joined_checksum(parts) for name, parts in checksums.items()},
        derived=reports[0].derived,
    )


def _start_workers(shape: PipelineShape, local: range, nodes: OtherNodes | None) -> WorkerPool:
    """The other ranks: started here, by a launcher, or by other machines."""
    launched = environment.launched_rank()
    if launched is None or launched.world_size == 1:
        elsewhere = None if nodes is None else nodes.lines
        return WorkerPool.start("rank", "mindgen.runner.rank_process", local[1:], elsewhere)
    if launched.rank == 0 and launched.world_size == shape.num_ranks:
        return WorkerPool.await_launched("rank", local[1:], launched.rendezvous)
    raise ConfigError(
        f"engine: this is rank {launched.rank} of {launched.world_size} that were launched, and tensor_parallel_size "
        f"{shape.ranks_per_stage} x pipeline_parallel_size {shape.num_stages} needs {shape.num_ranks}"
    )
