"""AllReduce between processes: mindgen's in shared memory and over TCP (loopback) against MindSpore's own, in turns.

    python benchmarks/all_reduce.py [--ranks 2] [--turns 3] [--rows 1 512] [--mindgen-only]

Microseconds of one call, the median of many, of float32 (rows, 2048); MindSpore's in graph mode over its cluster.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

import numpy as np

_ENVIRONMENT = dict(os.environ)  # as it is before mindgen is imported, which tells MindSpore of its ops
_COLUMNS = 2048
_CALLS = {1: 500, 512: 50}


class Contender:
    """Processes of one implementation, a rank each; each answers a number of rows with its microseconds."""

    def __init__(self, name: str, commands: list[list[str]], environments: list[dict[str, str]], files: list[int]):
        self.name = name
        self._processes = [
            subprocess.Popen(
                command, env={**_ENVIRONMENT, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                pass_fds=files,
            )
            for command, environment in zip(commands, environments, strict=True)
        ]  # fmt: skip

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def measure(self, rows: int) -> float:
        """Of rank 0; the first measurement waits for the start."""
        ranks = [process for process in self._processes if "--scheduler" not in process.args]
        for process in ranks:
            print(rows, file=process.stdin, flush=True)
        answers = [process.stdout.readline() for process in ranks]
        if not all(answers):
            raise SystemExit(f"{self.name} has ended before it answered")
        return json.loads(answers[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 512])
    parser.add_argument("--mindgen-only", action="store_true")
    parser.add_argument("--worker", choices=["mindgen", "mindspore"], help=argparse.SUPPRESS)
    parser.add_argument("--scheduler", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--links", type=int, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "mindgen":
        serve(mindgen_call(arguments.memory, arguments.rank, arguments.ranks, arguments.links))
    elif arguments.worker == "mindspore":
        serve(mindspore_call(arguments.scheduler))
    else:
        compare(arguments.ranks, arguments.turns, arguments.rows, arguments.mindgen_only)


def compare(ranks: int, turns: int, rows: list[int], mindgen_only: bool) -> None:
    from mindgen.kernels import plugin
    from mindgen.kernels.library import KernelLibrary
    from mindgen.parallel.group import shared_memory

    script = [sys.executable, str(Path(__file__).resolve()), "--ranks", str(ranks)]
    kernels = KernelLibrary(plugin.library_path())
    memory = shared_memory(kernels, ranks)
    own = [[*script, "--worker", "mindgen", "--rank", str(rank), "--memory", str(memory)] for rank in range(ranks)]
    nodes = [shared_memory(kernels, 1) for _ in range(ranks)]
    links = connect_nodes(ranks)
    over_tcp = [
        [*script, "--worker", "mindgen", "--rank", str(rank), "--memory", str(nodes[rank]), "--links", *map(str, each)]
        for rank, each in enumerate(links)
    ]
    files = [*nodes, *(each for node in links for each in node if each >= 0)]
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender("mindgen", own, [{}] * ranks, [memory]))]
        contenders.append(stack.enter_context(Contender("mindgen over TCP", over_tcp, [{}] * ranks, files)))
        if not mindgen_only:
            commands = [[*script, "--worker", "mindspore"]] * ranks
            commands.append([*script, "--worker", "mindspore", "--scheduler"])
            environments = mindspore_environments(ranks)
            contenders.append(stack.enter_context(Contender("mindspore", commands, environments, [])))
        for each in rows:
            times = {contender.name: [] for contender in contenders}
            for _ in range(turns):
                for contender in contenders:
                    times[contender.name].append(contender.measure(each))
            medians = {name: statistics.median(values) for name, values in times.items()}
            shown = ", ".join(f"{name} {median:.1f} us" for name, median in medians.items())
            print(f"({each}, {_COLUMNS}) float32, {ranks} ranks: {shown}", flush=True)


def serve(all_reduce: Callable[[np.ndarray], np.ndarray]) -> None:
    """Answers each number of rows with the median time of a call, in microseconds."""
    for line in sys.stdin:
        x = np.ones((int(line), _COLUMNS), np.float32)
        times = []
        for _ in range(_CALLS.get(len(x), 100)):
            started = time.perf_counter()
            y = all_reduce(x)
            times.append(time.perf_counter() - started)
        assert (y == y[0, 0]).all() and y[0, 0] > 1
        print(statistics.median(times) * 1e6, flush=True)


def connect_nodes(count: int) -> list[list[int]]:
    """Descriptors of TCP connections between each two nodes, of each node by node, -1 for itself."""
    links = [[-1] * count for _ in range(count)]
    for first, second in combinations(range(count), 2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ends = socket.create_connection(listener.getsockname()), listener.accept()[0]
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        links[first][second], links[second][first] = (end.detach() for end in ends)
    return links


def mindgen_call(memory: int, rank: int, ranks: int, links: list[int] | None) -> Callable[[np.ndarray], np.ndarray]:
    """In one shared memory, or as a node of its own."""
    from mindgen.kernels import plugin
    from mindgen.kernels.library import DType, KernelLibrary
    from mindgen.parallel.group import NodeLinks, ProcessGroup

    kernels = KernelLibrary(plugin.library_path())
    kernels.num_threads = 1
    group = ProcessGroup(kernels, memory, rank, ranks, links and NodeLinks(rank, ranks, tuple(links)))
    outputs: dict[int, np.ndarray] = {}

    def call(x: np.ndarray) -> np.ndarray:
        y = outputs.setdefault(len(x), np.empty_like(x))
        group.all_reduce(x, y, DType.FLOAT32)
        return y

    return call


def mindspore_environments(ranks: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MS_WORKER_NUM": str(ranks), "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port), "GLOG_v": "4",
    }  # fmt: skip
    workers = [{**common, "MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)} for rank in range(ranks)]
    return [*workers, {**common, "MS_ROLE": "MS_SCHED"}]


def mindspore_call(is_scheduler: bool) -> Callable[[np.ndarray], np.ndarray]:
    """MindSpore alone: in a process that has imported mindgen it would call mindgen's AllReduce."""
    import mindspore
    from mindspore import Tensor, nn, ops
    from mindspore.communication import init

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.set_device("CPU")
    init()
    if is_scheduler:
        sys.exit()

    class Sum(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.all_reduce = ops.AllReduce()

        def construct(self, x: Tensor) -> Tensor:
            return self.all_reduce(x)

    network = Sum()
    return lambda x: network(Tensor(x)).asnumpy()


if __name__ == "__main__":
    main()
