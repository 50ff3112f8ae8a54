"""A rank above 0 of those that share a network: runs its part of it as rank 0 tells it to.

    python -m mindgen.runner.rank_process RENDEZVOUS RANK

The worker ends with rank 0: its end of the socket closes whatever happens to that process.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.engine.config import EngineConfig
from mindgen.errors import AdapterError, MessageError, MindgenError, WorkerError
from mindgen.parallel.channel import SIGN_OF_LIFE, SOCKET, Channel, connect
from mindgen.parallel.messages import Answer, Arrival, Call
from mindgen.parallel.stage import PipelineShape
from mindgen.runner.batch import Batch
from mindgen.runner.block_store import BlockCopy
from mindgen.system.environment import launched_rank
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import WeightFiles

if TYPE_CHECKING:
    from mindgen.adapters.loader import AdapterWeights
    from mindgen.runner.slots import PackedAdapter

_CONNECT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RankHost:
    """What the machine of a rank has for it.

    Attributes:
        adapters: the folders of those that this machine knows by another path than rank 0's.
        cores: that the worker runs on; None is any.
        node: of num_nodes, this machine.
    """

    weights: WeightFiles
    adapters: dict[str, Path]
    cores: list[int] | None
    num_threads: int
    node: int = 0
    num_nodes: int = 1


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What all ranks have in common; but for these, the arguments of open_runner.

    Attributes:
        shape: of all ranks.
        host_adapter_bytes: of adapters that have been read, at most.
        adapter_slices: as in EngineConfig.
    """

    shape: PipelineShape
    model_config: ModelConfig
    num_blocks: int
    block_size: int
    num_positions: int
    dtype: str
    device: str
    executor: str
    host_adapter_bytes: int
    adapter_slices: str | None


# What rank 0 may ask for, and the types of the arguments.
_CALLS: dict[str, tuple[Any, ...]] = {
    "prepare": (RankHost,),
    "set_up": (WorkerSetup,),
    "read_adapter": (str, Path, str),
    "write_adapter": (int, str, Path, str),
    "enable_lora": (SlotLayout, list[SlotMove]),
    "copy_blocks": (list[BlockCopy],),
    "keep_blocks": (int, list[int]),
    "restore_blocks": (int, list[int]),
    "drop_blocks": (int,),
    "set_modules": (dict[str, tuple[int, int]],),
    "run": (Batch,),
    SIGN_OF_LIFE: (),
}


def serve(rendezvous: Path, rank: int, connect_seconds: float = _CONNECT_SECONDS) -> int:
    """Serves rank 0, which listens in the folder, to its end; returns the exit code."""
    try:
        channel = connect(rendezvous / SOCKET, connect_seconds)
    except TimeoutError as error:
        print(f"mindgen: rank {rank}: {error}: rank 0 has not come", file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is rank 0's to handle
    channel.send(Arrival(rank, os.getpid()))
    return _Worker(channel, rank).run()


def serve_launched(config: EngineConfig) -> None:
    """Where a launcher has started this process as a rank above 0 of as many as share the model, serves rank 0 to its
    end, and then ends the program.
    """
    launched = launched_rank()
    if launched is not None and launched.rank > 0 and launched.world_size == config.ranks_per_replica:
        raise SystemExit(serve(launched.rendezvous, launched.rank))


class _Worker:
    def __init__(self, channel: Channel, rank: int) -> None:
        self._channel = channel
        self._rank = rank
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._reader = ThreadPoolExecutor(1, "adapters")
        self._host: RankHost | None = None
        self._shard: _Shard | None = None

    def run(self) -> int:
        files = self._channel.receive_files()
        threading.Thread(target=self._receive, daemon=True).start()
        while True:
            call = self._calls.get()
            try:
                self._handle(call, files)
            except Exception as error:
                traceback.print_exc()
                if self._shard is not None:
                    self._shard.place.abort(f"rank {self._rank}: {error}")
                if call.number is not None:
                    self._reply(call.number, error)
                return 1

    def _handle(self, call: Call, files: list[int]) -> None:
        if call.name not in _CALLS:
            raise MessageError(f"a rank knows no {call.name!r}")
        arguments = call.read(*_CALLS[call.name])
        if call.name == "prepare":
            (self._host,) = arguments
        elif call.name == "set_up":
            assert self._host is not None
            self._shard = _Shard(files, self._rank, self._host, *arguments)
            self._reply(call.number, None, self._shard.report)
        elif call.name == SIGN_OF_LIFE:
            self._reply(call.number, None)
        elif call.name == "read_adapter":
            assert self._shard is not None
            self._reader.submit(self._answer, call.number, self._shard.read_adapter, arguments)
        else:
            getattr(self._shard, call.name)(*arguments)

    def _receive(self) -> None:
        try:
            while True:
                self._calls.put(self._channel.receive(Call))
        except EOFError:
            os._exit(0)  # in whatever the main thread waits
        except MessageError:
            traceback.print_exc()
            os._exit(1)

    def _answer(self, call: int | None, function: Any, arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
            self._reply(call, None)
        except Exception as error:
            self._reply(call, error)

    def _reply(self, call: int | None, error: Exception | None, result: Any = None) -> None:
        """Errors as rank 0 raises them."""
        if error is not None and not isinstance(error, MindgenError):
            error = WorkerError(f"{type(error).__name__}: {error}")
        self._channel.send(Answer.of(call, result, error))


class _Shard:
    """This rank's part of the network.

    Attributes:
        modules: of the whole network, by name, as adapters are checked against them.
    """

    def __init__(self, files: list[int], rank: int, host: RankHost, setup: WorkerSetup) -> None:
        if host.cores is not None:
            os.sched_setaffinity(0, host.cores)
        from mindgen.kernels import plugin
        from mindgen.layers.attention import CacheShape
        from mindgen.parallel.group import NodeLinks
        from mindgen.parallel.rank_place import open_place
        from mindgen.runner.open import open_runner  # starts MindSpore, which rank 0's end need not wait for

        links = None
        if host.num_nodes > 1:
            sockets = files[1:]
            if sockets:
                sockets.insert(host.node, -1)
            links = NodeLinks(host.node, host.num_nodes, tuple(sockets))
        self.place = open_place(plugin.load(), setup.shape, rank, files, links)
        for descriptor in files:
            os.close(descriptor)
        cache = CacheShape(setup.num_blocks, setup.block_size)
        self._runner = open_runner(
            host.weights, setup.model_config, cache, setup.num_positions, setup.dtype, setup.device, setup.executor,
            host.num_threads, self.place,
        )  # fmt: skip
        self.report = self._runner.report
        self.modules = self.report.modules
        self._host, self._rank = host, rank
        self._host_adapter_bytes = setup.host_adapter_bytes
        self._slices = None if setup.adapter_slices is None else Path(setup.adapter_slices)
        self._adapters: OrderedDict[str, tuple[PackedAdapter, int]] = OrderedDict()
        self._layout = SlotLayout(())  # what they are packed for
        self._adapters_lock = threading.Lock()

    def set_modules(self, modules: dict[str, tuple[int, int]]) -> None:
        self.modules = modules

    def run(self, batch: Batch) -> None:
        self._runner.run(batch)

    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        self._runner.copy_blocks(copies)

    def keep_blocks(self, key: int, blocks: list[int]) -> None:
        self._runner.block_store.keep(key, blocks)

    def restore_blocks(self, key: int, blocks: list[int]) -> None:
        self._runner.block_store.restore(key, blocks)

    def drop_blocks(self, key: int) -> None:
        self._runner.block_store.drop(key)

    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None:
        self._runner.enable_lora(layout, moves)
        with self._adapters_lock:
            self._layout = layout
            self._adapters.clear()

    def read_adapter(self, adapter_id: str, folder: Path, digest: str) -> "PackedAdapter":
        """The adapter in the form of a slot, from disk or from memory.

        Raises:
            AdapterError: it is not what rank 0 has read.
        """
        from mindgen.adapters.slice_files import take_slices

        with self._adapters_lock:
            if digest in self._adapters:
                self._adapters.move_to_end(digest)
                return self._adapters[digest][0]
            layout = self._layout
        adapter = self._load_adapter(adapter_id, folder, digest)
        packed, num_bytes = self._runner.pack_adapter(
            take_slices(adapter, self._slices, self.place.group.size, self.place.group.rank)
        )
        with self._adapters_lock:
            if layout is not self._layout:
                return packed
            self._adapters[digest] = packed, num_bytes
            total = sum(size for _, size in self._adapters.values())
            while len(self._adapters) > 1 and total > self._host_adapter_bytes:
                total -= self._adapters.popitem(last=False)[1][1]
        return packed

    def _load_adapter(self, adapter_id: str, folder: Path, digest: str) -> "AdapterWeights":
        """From where this machine has it, or from rank 0's folder: a name may have been given to another one."""
        from mindgen.adapters.loader import load_adapter

        for place in dict.fromkeys([self._host.adapters.get(adapter_id, folder), folder]):
            adapter = load_adapter(adapter_id, place, self.modules, self._runner.base_model)
            if adapter.digest == digest:
                return adapter
        raise AdapterError(
            f"adapter {adapter_id} is {digest} to rank 0, and {adapter.digest} to rank {self._rank} ({place}): it has "
            "changed on disk while it was read, or another machine has another; make them the same and add it again"
        )

    def write_adapter(self, slot: int, adapter_id: str, folder: Path, digest: str) -> None:
        self._runner.write_adapter(slot, self.read_adapter(adapter_id, folder, digest))


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
