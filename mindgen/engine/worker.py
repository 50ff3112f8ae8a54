"""A rank above 0 of those that share a network: runs its part of it as rank 0 tells it to.

    python -m mindgen.engine.worker RENDEZVOUS RANK

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

from mindgen.checkpoint.weight_files import WeightFiles
from mindgen.errors import AdapterError, MindgenError, WorkerError
from mindgen.model_config import ModelConfig
from mindgen.parallel.channel import SIGN_OF_LIFE, SOCKET, Channel, connect
from mindgen.parallel.stage import PipelineShape
from mindgen.slot_layout import SlotLayout

if TYPE_CHECKING:
    from mindgen.engine.batch import Batch
    from mindgen.engine.block_manager import BlockCopy
    from mindgen.engine.network_slots import PackedAdapter
    from mindgen.parallel.rank_place import RankPlace

_CONNECT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a rank must know to build its shard; `runner` are open_runner's arguments that all ranks have in common.

    Attributes:
        shape: of all ranks.
        host_adapter_bytes: of adapters that have been read, at most.
        cores: that the worker runs on; None is any.
    """

    shape: PipelineShape
    weights: WeightFiles
    model_config: ModelConfig
    runner: dict[str, Any]
    host_adapter_bytes: int
    cores: list[int] | None


def serve(rendezvous: Path, rank: int, connect_seconds: float = _CONNECT_SECONDS) -> int:
    """Serves rank 0, which listens in the folder, to its end; returns the exit code."""
    try:
        channel = connect(rendezvous / SOCKET, connect_seconds)
    except TimeoutError as error:
        print(f"mindgen: rank {rank}: {error}: rank 0 has not come", file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is rank 0's to handle
    channel.send((rank, os.getpid()))
    return _Worker(channel, rank).run()


class _Worker:
    def __init__(self, channel: Channel, rank: int) -> None:
        self._channel = channel
        self._rank = rank
        self._messages: queue.SimpleQueue[tuple[int | None, str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._reader = ThreadPoolExecutor(1, "adapters")
        self._place: RankPlace | None = None

    def run(self) -> int:
        files = self._channel.receive_files()
        threading.Thread(target=self._receive, daemon=True).start()
        shard: _Shard | None = None
        while True:
            call, name, arguments = self._messages.get()
            try:
                if name == "set_up":
                    shard = _Shard(files, self._rank, *arguments)
                    self._place = shard.place
                    self._reply(call, None, shard.report)
                elif name == SIGN_OF_LIFE:
                    self._reply(call, None)
                elif name == "read_adapter":
                    assert shard is not None
                    self._reader.submit(self._answer, call, shard.read_adapter, arguments)
                else:
                    getattr(shard, name)(*arguments)
            except Exception as error:
                traceback.print_exc()
                if self._place is not None:
                    self._place.abort(f"rank {self._rank}: {error}")
                if call is not None:
                    self._reply(call, error)
                return 1

    def _receive(self) -> None:
        try:
            while True:
                self._messages.put(self._channel.receive())
        except EOFError:
            os._exit(0)  # in whatever the main thread waits

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
        self._channel.send((call, result, error))


class _Shard:
    """This rank's part of the network.

    Attributes:
        modules: of the whole network, by name, as adapters are checked against them.
    """

    def __init__(self, files: list[int], rank: int, setup: WorkerSetup) -> None:
        if setup.cores is not None:
            os.sched_setaffinity(0, setup.cores)
        from mindgen.engine.open_runner import open_runner  # starts MindSpore, which rank 0's end need not wait for
        from mindgen.kernels import plugin
        from mindgen.parallel.rank_place import open_place

        self.place = open_place(plugin.load(), setup.shape, rank, files)
        for descriptor in files:
            os.close(descriptor)
        self._runner = open_runner(setup.weights, setup.model_config, **setup.runner, place=self.place)
        self.report = self._runner.report
        self.modules = self.report.modules
        self._host_adapter_bytes = setup.host_adapter_bytes
        self._adapters: OrderedDict[str, tuple[PackedAdapter, int]] = OrderedDict()
        self._adapters_lock = threading.Lock()

    def set_modules(self, modules: dict[str, tuple[int, int]]) -> None:
        self.modules = modules

    def run(self, batch: "Batch") -> None:
        self._runner.run(batch)

    def copy_blocks(self, copies: list["BlockCopy"]) -> None:
        self._runner.copy_blocks(copies)

    def keep_blocks(self, key: int, blocks: list[int]) -> None:
        self._runner.block_store.keep(key, blocks)

    def restore_blocks(self, key: int, blocks: list[int]) -> None:
        self._runner.block_store.restore(key, blocks)

    def drop_blocks(self, key: int) -> None:
        self._runner.block_store.drop(key)

    def enable_lora(self, layout: SlotLayout) -> None:
        self._runner.enable_lora(layout)

    def read_adapter(self, adapter_id: str, folder: Path, digest: str) -> "PackedAdapter":
        """The adapter in the form of a slot, from disk or from memory.

        Raises:
            AdapterError: it is not what rank 0 has read.
        """
        from mindgen.adapters.loader import load_adapter

        with self._adapters_lock:
            if digest in self._adapters:
                self._adapters.move_to_end(digest)
                return self._adapters[digest][0]
        adapter = load_adapter(adapter_id, folder, self.modules, self._runner.base_model)
        if adapter.digest != digest:
            raise AdapterError(f"adapter {adapter_id} has changed on disk while it was read: add it again")
        packed, num_bytes = self._runner.pack_adapter(adapter)
        with self._adapters_lock:
            self._adapters[digest] = packed, num_bytes
            total = sum(size for _, size in self._adapters.values())
            while len(self._adapters) > 1 and total > self._host_adapter_bytes:
                total -= self._adapters.popitem(last=False)[1][1]
        return packed

    def write_adapter(self, slot: int, adapter_id: str, folder: Path, digest: str) -> None:
        self._runner.write_adapter(slot, self.read_adapter(adapter_id, folder, digest))


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
