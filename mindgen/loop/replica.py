"""A replica of a model: a process that serves the requests that it is given with an engine of its own.

python -m mindgen.loop.replica RENDEZVOUS NUMBER
"""

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mindgen.engine.metrics import EngineMetrics
from mindgen.errors import MindgenError, WorkerError
from mindgen.loop.model_files import ModelFiles, ModelSetup
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.subscription import Subscription, Waiter
from mindgen.outputs import TextChunk
from mindgen.parallel.calls import remote, remote_calls
from mindgen.parallel.worker_process import join_as_worker
from mindgen.system.memory import keep_heap

if TYPE_CHECKING:
    from mindgen.loop.local_model import LocalModel

# What a replica says of a call: its number, chunks of a step, and what has ended it before its time.
CallNews: TypeAlias = tuple[int, list[TextChunk], MindgenError | None]


@dataclass(frozen=True, slots=True)
class ReplicaHost:
    """What the machine of a replica has for it: its paths of the model, and its share of the cores where it has one."""

    model: str
    adapters: str | dict[str, str] | None
    checkpoint: str | None
    cores: list[int] | None
    num_threads: int | None


class Replica:
    """What the first process may ask for.

    Args:
        say: sends CallNews.
    """

    def __init__(self, say: Callable[[CallNews], None]) -> None:
        self._say = say
        self._host: ReplicaHost
        self._model: LocalModel
        self._calls: dict[int, _Forwarding] = {}

    @remote()
    def prepare(self, host: ReplicaHost) -> None:
        self._host = host

    @remote()
    def set_up(self, setup: ModelSetup) -> None:
        host = self._host
        if host.cores is not None:
            os.sched_setaffinity(0, host.cores)
        from mindgen.loop.local_model import LocalModel  # starts MindSpore

        files = ModelFiles.of(host.model, host.adapters, host.checkpoint)
        config = replace(setup.config, num_threads=host.num_threads)
        self._model = LocalModel(files, replace(setup, config=config))
        keep_heap()

    @remote()
    def open(self, number: int, requests: list[tuple[int, CheckedRequest]], is_streamed: bool) -> None:
        self._calls = {each: call for each, call in self._calls.items() if call.is_open}
        self._calls[number] = _Forwarding(number, len(requests), self._say)
        self._model.loop.submit(requests, self._calls[number], is_streamed)

    @remote()
    def cancel(self, number: int) -> None:
        if number in self._calls:
            self._model.loop.abort(self._calls.pop(number))

    @remote()
    def add_adapter(self, adapter_id: str, folder: Path) -> None:
        self._model.add_adapter(adapter_id, folder)

    @remote()
    def remove_adapter(self, adapter_id: str) -> None:
        self._model.remove_adapter(adapter_id)

    @remote()
    def release_adapters(self) -> int:
        return self._model.release_adapters()

    @remote()
    def metrics(self) -> EngineMetrics:
        return self._model.metrics()

    @remote()
    def reset_prefix_cache(self) -> None:
        self._model.reset_prefix_cache()


class _Forwarding(Subscription):
    """Sends what comes of a call to the first process."""

    def __init__(self, number: int, num_requests: int, say: Callable[[CallNews], None]) -> None:
        super().__init__(num_requests)
        self._number, self._say = number, say

    def put(self, chunks: list[TextChunk]) -> Waiter | None:
        if not self.is_closed:
            self._num_open -= sum(chunk.output is not None for chunk in chunks)
            self._say((self._number, chunks, None))
        return None

    def fail(self, error: BaseException) -> Waiter | None:
        known = error if isinstance(error, MindgenError) else WorkerError(f"{type(error).__name__}: {error}")
        self._say((self._number, [], known))
        if isinstance(known, WorkerError):  # a rank of this replica has ended, and nothing can be computed any more
            print(f"mindgen: {known}", file=sys.stderr, flush=True)
            os._exit(1)
        return None


def serve(rendezvous: Path, number: int) -> int:
    """Serves the process that listens in the folder to its end; returns the exit code."""
    process = join_as_worker(rendezvous, number, takes_files=False)
    if process is None:
        return 1
    replica, calls = Replica(process.say), remote_calls(Replica)
    while True:
        call = process.next_call()
        try:
            process.execute(call, calls, replica)
        except Exception as error:
            process.refuse(call.number, error)
            if call.number is None or call.name == "set_up":  # nobody hears of it otherwise, or nothing can follow
                traceback.print_exc()
                return 1


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
