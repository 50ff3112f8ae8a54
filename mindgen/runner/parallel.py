"""The network on several ranks: rank 0's part here, the others in worker processes that make the same steps."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slice_files import take_slices
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.dtypes import STORAGE
from mindgen.engine.config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.kernels import backend, plugin
from mindgen.layers.attention import CacheShape
from mindgen.models.causal_lm import refuse_unknown
from mindgen.parallel.group import NodeLinks
from mindgen.parallel.nodes import Nodes
from mindgen.parallel.rank_place import PlaceFiles, open_place
from mindgen.parallel.stage import PipelineShape
from mindgen.parallel.workers import Workers, wait_for
from mindgen.runner.batch import Batch
from mindgen.runner.block_store import BlockCopy, BlockStore
from mindgen.runner.cpu import RankReport
from mindgen.runner.device import choose_device
from mindgen.runner.local_ranks import prepare_ranks, threads_per_rank
from mindgen.runner.open import AnyRunner, open_runner
from mindgen.runner.rank_process import RankHost, WorkerSetup
from mindgen.runner.slots import PackedAdapter
from mindgen.system import environment
from mindgen.system.memory import parse_size
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import WeightFiles

Result = TypeVar("Result")


class SlicedAdapter(NamedTuple):
    """An adapter of which each rank has its part: rank 0's, and what the others know it by."""

    packed: PackedAdapter
    adapter_id: str
    folder: Path
    digest: str


class ParallelRunner:
    """As a Runner, on several ranks.

    Args:
        nodes: the other machines that have some of them; None if all are here.
        num_threads: of this machine's ranks together; None is one for each core.
        setup: what the ranks have in common.
        worker_timeout: as in EngineConfig.

    Attributes:
        reports: of what each rank has loaded.

    Raises:
        WorkerError: a rank has ended.
    """

    def __init__(
        self,
        weights: WeightFiles,
        cache: CacheShape,
        num_threads: int | None,
        setup: WorkerSetup,
        worker_timeout: float,
        nodes: Nodes | None = None,
    ) -> None:
        kernels, size = plugin.load(), setup.shape.num_ranks
        local = range(size) if nodes is None else nodes.plan.workers(0)
        links = None if nodes is None else NodeLinks(0, nodes.plan.num_nodes, nodes.sockets)
        self._workers = _start_workers(setup.shape, local, nodes)
        self._files = PlaceFiles(kernels, setup.shape)
        self._place = open_place(kernels, setup.shape, 0, self._files.of_rank(0), links)
        try:
            # Stages work one after the other: each has all threads.
            sharing = min(len(local), setup.shape.ranks_per_stage)
            threads = threads_per_rank(num_threads, sharing)
            host = RankHost(weights, {}, None, threads, 0, size // len(local))
            prepare_ranks(self._workers, local[1:], self._files.of_rank, host, sharing)
            if nodes is not None:
                nodes.close_sockets()
            self._workers.watch(self._place.abort, worker_timeout)
            if setup.device == "CPU":
                backend.available(setup.executor)  # compiled by one, before the others would have to wait for it
            ready: list[Future[RankReport]] = self._workers.call("set_up", setup, result=RankReport)
            self._own = open_runner(
                weights, setup.model_config, cache, setup.num_positions, setup.dtype, setup.device, setup.executor,
                threads, self._place,
            )  # fmt: skip
            self.reports = [self._own.report, *wait_for(ready)]
            self._modules = self._join(self.reports, setup.model_config.architecture)
        except BaseException as error:
            cause = self._workers.error
            self.close()
            if cause is not None:
                raise cause from error
            raise
        self._slices = None if setup.adapter_slices is None else Path(setup.adapter_slices)
        self.base_model = self._own.base_model
        self.block_store = _SharedBlockStore(self._own.block_store, self._on_all_ranks)

    def _join(self, reports: list[RankReport], architecture: str) -> dict[str, tuple[int, int]]:
        """The modules of the whole network, which the other ranks are told."""
        taken = {name for report in reports for name in report.weights}
        refuse_unknown(architecture, {name for report in reports for name in report.unknown} - taken)
        modules = {name: sizes for report in reports for name, sizes in report.modules.items()}
        self._workers.tell("set_modules", modules)
        return modules

    def modules(self) -> dict[str, tuple[int, int]]:
        return self._modules

    def enable_lora(self, layout: SlotLayout, moves: Sequence[SlotMove] = ()) -> None:
        self._on_all_ranks("enable_lora", (layout, list(moves)), lambda: self._own.enable_lora(layout, moves))

    def pack_adapter(self, adapter: AdapterWeights) -> tuple[SlicedAdapter, int]:
        """As the Runner's; every rank reads the adapter itself, and has read the same."""
        name = (adapter.adapter_id, adapter.folder, adapter.digest)
        read: list[Future[None]] = self._workers.call("read_adapter", *name)
        packed, num_bytes = self._own.pack_adapter(take_slices(adapter, self._slices, self._place.group.size, 0))
        wait_for(read)
        return SlicedAdapter(packed, *name), num_bytes

    def write_adapter(self, slot: int, adapter: SlicedAdapter) -> None:
        arguments = (slot, adapter.adapter_id, adapter.folder, adapter.digest)
        self._on_all_ranks("write_adapter", arguments, lambda: self._own.write_adapter(slot, adapter.packed))

    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        self._on_all_ranks("copy_blocks", (copies,), lambda: self._own.copy_blocks(copies))

    def run(self, batch: Batch) -> np.ndarray:
        """As the Runner's; what ends one rank ends all.

        Raises:
            WorkerError, KernelError: a rank has ended, or its shard has failed.
        """
        return self._on_all_ranks("run", (replace(batch, entries=[]),), lambda: self._own.run(batch))

    def close(self) -> None:
        """Ends the other ranks."""
        self._workers.close()
        self._place.group.leave()
        self._files.close()

    def _on_all_ranks(self, name: str, arguments: tuple[Any, ...], own: Callable[[], Result]) -> Result:
        """What `own` gives, while the other ranks do the same; Ctrl-C waits, lest some do it and others do not."""
        with environment.deferred_interrupt() as interrupted:
            try:
                self._workers.tell(name, *arguments)
                result = own()
            except BaseException as error:
                self._place.abort(f"rank 0: {error}")
                if self._workers.error is not None:
                    raise self._workers.error from error
                raise
        if interrupted():
            raise KeyboardInterrupt
        return result


def build_runner(
    weights: WeightFiles,
    model_config: ModelConfig,
    cache: CacheShape,
    num_positions: int,
    dtype: str,
    config: EngineConfig,
    nodes: Nodes | None = None,
) -> AnyRunner | ParallelRunner:
    """Here, or on as many ranks as the configuration says, some of them on other machines."""
    device, executor = choose_device(config.device_target), config.executor
    shape = PipelineShape(
        config.pipeline_parallel_size,
        config.tensor_parallel_size,
        config.max_num_batched_tokens * model_config.hidden_size * np.dtype(STORAGE[dtype]).itemsize,
        config.max_num_batched_tokens * model_config.vocab_size * np.dtype(np.float32).itemsize,
        dtype,
    )
    if shape.num_ranks == 1:
        return open_runner(weights, model_config, cache, num_positions, dtype, device, executor, config.num_threads)
    setup = WorkerSetup(
        shape, model_config, cache.num_blocks, cache.block_size, num_positions, dtype, device, executor,
        parse_size(config.host_adapter_memory), config.adapter_slices,
    )  # fmt: skip
    return ParallelRunner(weights, cache, config.num_threads, setup, config.worker_timeout, nodes)


def _start_workers(shape: PipelineShape, local: range, nodes: Nodes | None) -> Workers:
    """The other ranks: started here, by a launcher, or by other machines."""
    launched = environment.launched_rank()
    if launched is None or launched.world_size == 1:
        elsewhere = None if nodes is None else nodes.lines
        return Workers.start("rank", "mindgen.runner.rank_process", local[1:], elsewhere)
    if launched.rank == 0 and launched.world_size == shape.num_ranks:
        return Workers.await_launched(shape.num_ranks, launched.rendezvous)
    raise ConfigError(
        f"engine: this is rank {launched.rank} of {launched.world_size} that were launched, and tensor_parallel_size "
        f"{shape.ranks_per_stage} x pipeline_parallel_size {shape.num_stages} needs {shape.num_ranks}"
    )


class _SharedBlockStore:
    """As a BlockStore, of all ranks."""

    def __init__(
        self, own: BlockStore, on_all_ranks: Callable[[str, tuple[Any, ...], Callable[[], None]], None]
    ) -> None:
        self._own = own
        self._on_all_ranks = on_all_ranks

    def keep(self, key: int, blocks: list[int]) -> None:
        self._on_all_ranks("keep_blocks", (key, blocks), lambda: self._own.keep(key, blocks))

    def restore(self, key: int, blocks: list[int]) -> None:
        self._on_all_ranks("restore_blocks", (key, blocks), lambda: self._own.restore(key, blocks))

    def drop(self, key: int) -> None:
        self._on_all_ranks("drop_blocks", (key,), lambda: self._own.drop(key))
