"""One of several machines (nodes) that serve a model together: node 0 has the prompts, the others serve it."""

import os
import sys
import threading
from contextlib import suppress

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError, MessageError, MindgenError, WorkerError
from mindgen.kernels import plugin
from mindgen.loop.local_replicas import start_replicas
from mindgen.loop.model_files import ModelFiles, adapter_digests
from mindgen.parallel.group import shared_memory
from mindgen.parallel.meeting import Identity, Peers, join_nodes
from mindgen.parallel.messages import Failure, Farewell, Parcel
from mindgen.parallel.node_placement import NodePlacement
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.parallel.worker_pool import WorkerPool
from mindgen.runner.local_ranks import prepare_ranks
from mindgen.runner.spec import RankHost
from mindgen.system import environment
from mindgen.system.cores import threads_per_share

_VERDICT_SECONDS = 10.0  # that node 0 has to answer a failure
_INTERRUPTED = 130


def meet_nodes(files: ModelFiles, config: EngineConfig) -> OtherNodes:
    """As node 0: the others, once they have come.

    Raises:
        ConfigError: the sizes do not fit the nodes.
        LaunchError: one has not come.
    """
    return OtherNodes(_placement(config), _identity(files, config))


def serve_node(files: ModelFiles, config: EngineConfig) -> None:
    """As another node: serves node 0 to its end.

    Raises:
        ConfigError, LaunchError: as for node 0.
        MindgenError: whatever has ended node 0, or this node, with the exit code of that.
    """
    placement = _placement(config)
    peers = join_nodes(placement, _identity(files, config))
    try:
        _Node(placement, peers, files, config).serve()
    finally:
        peers.close()


def verdict(error: BaseException) -> tuple[int, str]:
    """What an error that ends node 0 means for the others: an exit code and a reason."""
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, "node 0 was interrupted"
    return getattr(error, "exit_code", 1), str(error) or type(error).__name__


class _Node:
    """Starts this node's workers, and hands on what node 0 and they say to each other."""

    def __init__(self, placement: NodePlacement, peers: Peers, files: ModelFiles, config: EngineConfig) -> None:
        self._placement, self._peers, self._files, self._config = placement, peers, files, config
        self._channel = peers.channels[0]
        self._failure = ""

    def serve(self) -> None:
        kind, numbers = "rank" if self._placement.spans else "replica", self._placement.workers(self._placement.node)
        try:
            workers = self._start(numbers)
        except MindgenError as error:
            self._fail(str(error))
            self._await_verdict()
            raise
        try:
            workers.relay(self._hand_back, lambda _, why: self._fail(why))
            shown = f"{kind} {numbers[0]}" + (f" to {numbers[-1]}" if len(numbers) > 1 else "")
            self._say(f"serves node 0 at {self._placement.address[0]} with {shown}")
            self._hand_on(workers)
            self._say("node 0 is done")
        except KeyboardInterrupt:
            self._fail("it was interrupted")
            raise
        finally:
            workers.close()

    def _start(self, numbers: range) -> WorkerPool:
        placement = self._placement
        if not placement.spans:
            share = self._config.num_threads and max(1, self._config.num_threads // len(numbers))
            return start_replicas(numbers, len(numbers), self._files, share)
        weights = self._files.weights(placement.ranks_per_replica)
        adapters = {version.adapter_id: version.folder for version in self._files.registry().versions()}
        memory = shared_memory(plugin.load(), len(numbers))
        workers = WorkerPool.start("rank", "mindgen.runner.rank_process", numbers)
        sockets = [each for each in self._peers.descriptors(placement.num_nodes) if each >= 0]
        threads = threads_per_share(self._config.num_threads, len(numbers))
        host = RankHost(weights, adapters, None, threads, placement.node, placement.num_nodes)
        first = {numbers[0]: sockets}
        prepare_ranks(workers, numbers, lambda rank: [memory, *first.get(rank, [])], host, len(numbers))
        os.close(memory)
        self._peers.close_sockets()
        return workers

    def _hand_on(self, workers: WorkerPool) -> None:
        """Until node 0 says farewell."""
        while True:
            message = self._receive()
            if isinstance(message, Parcel):
                workers.forward(message.worker, message.message)
            elif message.exit_code == 0:
                return
            else:
                error = WorkerError(message.reason or f"node 0 has ended with exit code {message.exit_code}")
                error.exit_code = message.exit_code
                raise error

    def _receive(self) -> Parcel | Farewell:
        try:
            return self._channel.receive(Parcel | Farewell)  # type: ignore[no-any-return]
        except (EOFError, MessageError) as error:
            raise WorkerError(
                self._failure or f"node 0 ({self._placement.address[0]}) is gone: the connection has ended ({error})"
            ) from error

    def _hand_back(self, number: int, message: bytes) -> None:
        with suppress(OSError):  # which _receive notices
            self._channel.send(Parcel(number, message))

    def _fail(self, reason: str) -> None:
        """Tells node 0, whose farewell ends this node as well; or its silence does."""
        self._failure = reason
        with suppress(OSError):
            self._channel.send(Failure(reason))
        timer = threading.Timer(_VERDICT_SECONDS, self._channel.close)
        timer.daemon = True
        timer.start()

    def _await_verdict(self) -> None:
        with suppress(WorkerError):
            while isinstance(self._receive(), Parcel):
                pass

    def _say(self, text: str) -> None:
        sys.stderr.write(f"mindgen: {self._placement.name}: {text}\n")


def _placement(config: EngineConfig) -> NodePlacement:
    if environment.launched_rank() is not None:
        raise ConfigError("engine: nnodes starts ranks itself: leave out either it or `mindgen launch`")
    assert config.master_addr is not None
    placement = NodePlacement(
        config.nnodes,
        config.node_rank,
        config.data_parallel_size,
        config.ranks_per_replica,
        (config.master_addr, config.master_port),
        config.node_timeout,
    )
    if placement.spans and config.pipeline_parallel_size > 1:
        raise ConfigError(
            "engine: pipeline stages must be on one machine: a replica of several stages cannot lie on several nodes"
        )
    return placement


def _identity(files: ModelFiles, config: EngineConfig) -> Identity:
    names = {"tp": "tensor_parallel_size", "pp": "pipeline_parallel_size", "dp": "data_parallel_size"}
    sizes = {short: getattr(config, name) for short, name in names.items()}
    digest = files.model_digest(config.ranks_per_replica)
    return Identity(sizes, files.model, digest, adapter_digests(files.registry()))
