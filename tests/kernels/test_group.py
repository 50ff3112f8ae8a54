"""AllReduce and the gathering of columns through shared memory: between threads, and between processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from buffers import DTYPES, EPSILON, from_buffer, random_buffer

from mindgen.errors import KernelError
from mindgen.parallel.group import NodeLinks, ProcessGroup, shared_memory


def connect_nodes(num_nodes):
    """A TCP connection between each two nodes: the sockets of each node by node, None for its own."""
    sockets = [[None] * num_nodes for _ in range(num_nodes)]
    for first, second in combinations(range(num_nodes), 2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sockets[first][second] = socket.create_connection(listener.getsockname())
            sockets[second][first] = listener.accept()[0]
    return sockets


def make_groups(library, size, num_nodes=1):
    """The ranks of a group, each as on its node; and the sockets between the nodes, which the groups have too."""
    sockets = connect_nodes(num_nodes)
    groups, local_size = [], size // num_nodes
    for node in range(num_nodes):
        memory = shared_memory(library, local_size)
        descriptors = tuple(-1 if each is None else each.fileno() for each in sockets[node])
        for local_rank in range(local_size):
            links = NodeLinks(node, num_nodes, () if local_rank else descriptors) if num_nodes > 1 else None
            groups.append(ProcessGroup(library, memory, node * local_size + local_rank, size, links))
        os.close(memory)
    return groups, [each for node in sockets for each in node if each is not None]


def on_all_ranks(library, size, body, num_nodes=1):
    """What body(group) returns on each rank; each is a thread."""
    groups, sockets = make_groups(library, size, num_nodes)
    for each in sockets:
        each.close()
    with ThreadPoolExecutor(size) as threads:
        results = list(threads.map(body, groups))
    for group in groups:
        group.leave()
    return results


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "num_nodes"), [(1, 1), (2, 1), (3, 1), (5, 1), (2, 2), (4, 2), (3, 3)])
def test_sums_are_those_of_float64_and_alike_everywhere(library, dtype, size, num_nodes):
    counts = [1, 15, 16, 17, 2048, 65_536, 131_072, 131_073, 300_001]  # several pieces, and odd ends
    rng = np.random.default_rng(size)
    inputs = [[random_buffer(rng, count, dtype) for count in counts] for _ in range(size)]

    def body(group):
        outputs = [np.full_like(x, 1) for x in inputs[group.rank]]
        for x, y in zip(inputs[group.rank], outputs, strict=True):
            group.all_reduce(x, y, DTYPES[dtype])
        in_place = inputs[group.rank][-1].copy()
        group.all_reduce(in_place, in_place, DTYPES[dtype])
        return [*outputs, in_place]

    results = on_all_ranks(library, size, body, num_nodes)
    for place, count in enumerate([*counts, counts[-1]]):
        parts = [from_buffer(inputs[rank][min(place, len(counts) - 1)], dtype) for rank in range(size)]
        expected, largest = np.sum(parts, axis=0), np.sum(np.abs(parts), axis=0)
        for result in results:
            np.testing.assert_array_equal(result[place], results[0][place])
        error = np.abs(from_buffer(results[0][place], dtype) - expected)
        assert count == len(error)
        assert (error <= EPSILON[dtype] / 2 * np.abs(expected) + size * EPSILON["float32"] * largest).all()


@pytest.mark.parametrize(
    ("rows", "columns", "width", "num_nodes"),
    [(1, 7, 4, 1), (33, 9, 3, 1), (5, 100_001, 50_001, 1), (700, 323, 108, 1), (5, 200_001, 50_001, 2), (33, 9, 3, 3)],
)
def test_columns_are_gathered_and_cut(library, rows, columns, width, num_nodes):
    size = -(-columns // width)
    whole = np.arange(rows * size * width, dtype=np.float32).reshape(rows, size * width)

    def body(group):
        own = np.ascontiguousarray(whole[:, group.rank * width : (group.rank + 1) * width])
        return group.gather_columns(own, columns)

    np.testing.assert_array_equal(on_all_ranks(library, size, body, num_nodes)[0], whole[:, :columns])


def test_an_abort_ends_whoever_waits(library):
    def body(group):
        if group.rank == 1:
            time.sleep(0.2)  # the other sleeps by now
            group.abort("rank 1: it was enough")
            group.abort("rank 1: a second reason")
            return None
        x = np.ones(8, np.float32)
        for _ in range(2):
            with pytest.raises(KernelError, match="rank 1: it was enough"):
                group.all_reduce(x, x, DTYPES["float32"])
        return None

    on_all_ranks(library, 2, body)


def test_a_node_that_is_gone_is_an_error(library):
    groups, sockets = make_groups(library, 2, 2)
    x = np.ones(8, np.float32)
    sockets[0].shutdown(socket.SHUT_RDWR)
    with pytest.raises(KernelError, match="the connection with node 1 has ended"):
        groups[0].all_reduce(x, x, DTYPES["float32"])
    groups[1].abort("node 0 is gone")  # the reason that whoever watches the nodes gives
    with pytest.raises(KernelError, match="node 0 is gone"):
        groups[1].gather_columns(x.reshape(1, 8), 8)
    for group in groups:
        group.leave()


PROCESS = """
import sys, numpy as np
from mindgen.kernels.library import DType, KernelLibrary
from mindgen.parallel.group import ProcessGroup

kernels = KernelLibrary(sys.argv[1])
memory, rank, size = map(int, sys.argv[2:])
kernels.num_threads = 1
group = ProcessGroup(kernels, memory, rank, size)
x, y = np.arange(2048, dtype=np.float32) * (rank + 1), np.empty(2048, np.float32)
for call in range(3000):
    group.all_reduce(x, y, DType.FLOAT32)
    assert (y == np.arange(2048) * (size * (size + 1) // 2)).all()
    x, y = x, np.empty_like(y)
print("done", flush=True)
group.all_reduce(x, y, DType.FLOAT32)
"""


def test_processes_meet_thousands_of_times_and_a_killed_one_leaves_an_error(library):
    size = 4  # on two cores
    memory = shared_memory(library, size)
    group = ProcessGroup(library, memory, 0, size)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, library.path, str(memory), str(rank), str(size)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[memory], text=True,
        )
        for rank in range(1, size)
    ]  # fmt: skip
    x, y = np.arange(2048, dtype=np.float32), np.empty(2048, np.float32)
    for _ in range(3000):
        group.all_reduce(x, y, DTYPES["float32"])
        np.testing.assert_array_equal(y, np.arange(2048) * 10)
    assert [process.stdout.readline() for process in processes] == ["done\n"] * 3
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    group.abort("rank 1 was killed")
    for process in processes[1:]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and "rank 1 was killed" in errors
    group.leave()
    os.close(memory)
