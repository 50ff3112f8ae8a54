"""A rank above 0 of those that share a network: runs its part of it as rank 0 tells it to.

python -m mindgen.runner.rank_process RENDEZVOUS RANK
"""

import os
import sys
import threading
import traceback
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.adapters.formats.peft import Adapter
from mindgen.adapters.loader import AdapterWeights, fit_adapter, load_adapter
from mindgen.adapters.slice_files import take_slices
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.errors import AdapterError
from mindgen.kernels import plugin
from mindgen.parallel.calls import remote, remote_calls
from mindgen.parallel.group import NodeLinks
from mindgen.parallel.rank_place import RankPlace, open_place
from mindgen.parallel.worker_process import join_as_worker
from mindgen.runner.spec import RUNNER_CALLS, AdapterContent, RankHost, RankReport, RunnerSpec
from mindgen.system.environment import launched_rank
from mindgen.system.memory import keep_heap

if TYPE_CHECKING:
    from mindgen.runner.local import LocalRunner


def serve_launched(num_ranks: int) -> int | None:
    """Where a launcher has started this process as a rank above 0 of as many as share the model, serves rank 0 to its
    end, and returns the exit code; else None.
    """
    launched = launched_rank()
    if launched is None or launched.rank == 0 or launched.world_size != num_ranks:
        return None
    return serve(launched.rendezvous, launched.rank)


def serve(rendezvous: Path, number: int) -> int:
    """Serves rank 0, which listens in the folder, to its end; returns the exit code."""
    process = join_as_worker(rendezvous, number, takes_files=True)
    if process is None:
        return 1
    rank = Rank(number, process.files)
    calls = RUNNER_CALLS | remote_calls(Rank)
    while True:
        call = process.next_call()
        try:
            process.execute(call, calls, rank)
        except Exception as error:
            traceback.print_exc()
            if rank.place is not None:
                rank.place.abort(f"rank {number}: {error}")
            process.refuse(call.number, error)
            return 1


class Rank:
    """This rank's part of the network, and what rank 0 may ask of it besides what a Runner does.

    Attributes:
        place: among the ranks, once it is set up.
    """

    def __init__(self, number: int, files: list[int]) -> None:
        self._number, self._files = number, files
        self._host: RankHost
        self._runner: LocalRunner
        self.place: RankPlace | None = None
        self._reader = ThreadPoolExecutor(1, "adapters")
        self._adapters: OrderedDict[str, Any] = OrderedDict()
        self._held: dict[str, Adapter] = {}  # that lie in no folder
        self._layout = SlotLayout(())  # what they are packed for
        self._adapters_lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        """A Runner's method."""
        if name not in RUNNER_CALLS:
            raise AttributeError(name)
        return getattr(self._runner, name)

    @remote()
    def prepare(self, host: RankHost) -> None:
        self._host = host

    @remote()
    def set_up(self, spec: RunnerSpec) -> RankReport:
        host = self._host
        if host.cores is not None:
            os.sched_setaffinity(0, host.cores)
        from mindgen.runner.open import open_runner  # starts MindSpore, which rank 0's end need not wait for

        links = None
        if host.num_nodes > 1:
            sockets = self._files[1:]
            if sockets:
                sockets.insert(host.node, -1)
            links = NodeLinks(host.node, host.num_nodes, tuple(sockets))
        self.place = open_place(plugin.load(), spec.shape, self._number, self._files, links)
        for descriptor in self._files:
            os.close(descriptor)
        self._spec = spec
        self._runner = open_runner(replace(spec, num_threads=host.num_threads), host.weights, self.place)
        self._modules = self._runner.report.modules
        keep_heap()
        return self._runner.report

    @remote()
    def set_modules(self, modules: dict[str, tuple[int, int]]) -> None:
        """Those of the whole network, as adapters are checked against them."""
        self._modules = modules

    @remote()
    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None:
        self._runner.enable_lora(layout, moves)
        with self._adapters_lock:
            self._layout = layout
            self._adapters.clear()

    @remote(join=sum)
    def commit_weights(self) -> int:
        num_bytes = self._runner.commit_weights()
        with self._adapters_lock:
            self._layout = replace(self._layout)  # what is being read has seen the old weights
            self._adapters.clear()
        return num_bytes

    @remote()
    def hold_adapter(self, adapter: Adapter) -> None:
        with self._adapters_lock:
            self._held[adapter.digest] = adapter

    @remote()
    def drop_adapter(self, digest: str) -> None:
        with self._adapters_lock:
            self._held.pop(digest, None)
            self._adapters.pop(digest, None)

    @remote()
    def read_adapter(self, content: AdapterContent) -> "Future[None]":
        """Puts the adapter into the form of a slot, beside the steps."""
        return self._reader.submit(self._read_ahead, content)

    @remote()
    def write_adapter(self, slot: int, content: AdapterContent) -> None:
        self._runner.write_adapter(slot, self._read(content))

    def _read_ahead(self, content: AdapterContent) -> None:  # without a result, for no message holds a packed adapter
        self._read(content)

    def _read(self, content: AdapterContent) -> Any:
        """From disk or from memory.

        Raises:
            AdapterError: it is not what rank 0 has read.
        """
        with self._adapters_lock:
            if content.digest in self._adapters:
                self._adapters.move_to_end(content.digest)
                return self._adapters[content.digest]
            layout = self._layout
        assert self.place is not None
        group = self.place.group
        whole = self._load(content)
        packed = self._runner.pack_adapter(take_slices(whole, self._spec.adapter_slices, group.size, group.rank))
        with self._adapters_lock:
            if layout is not self._layout:
                return packed
            self._adapters[content.digest] = packed
            total = sum(each.num_bytes for each in self._adapters.values())
            while len(self._adapters) > 1 and total > self._spec.host_adapter_bytes:
                total -= self._adapters.popitem(last=False)[1].num_bytes
        return packed

    def _load(self, content: AdapterContent) -> AdapterWeights:
        """From where this machine has it, or from rank 0's folder: a name may have been given to another one."""
        adapter_id, folder, digest = content
        with self._adapters_lock:
            held = self._held.get(digest)
        if held is not None:
            return fit_adapter(adapter_id, held, self._modules, self._runner.base_model)
        for place in dict.fromkeys([self._host.adapters.get(adapter_id, folder), folder]):
            adapter = load_adapter(adapter_id, place, self._modules, self._runner.base_model)
            if adapter.digest == digest:
                return adapter
        raise AdapterError(
            f"adapter {adapter_id} is {digest} to rank 0, and {adapter.digest} to rank {self._number} ({place}): it "
            "has changed on disk while it was read, or another machine has another; make them the same and add it again"
        )


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
