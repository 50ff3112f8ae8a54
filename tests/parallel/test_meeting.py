"""How nodes find each other: who is let in, who is not, and what is said."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mindgen.errors import ConfigError, LaunchError
from mindgen.parallel import meeting
from mindgen.parallel.channel import Channel
from mindgen.parallel.meeting import Identity, await_nodes, join_nodes
from mindgen.parallel.messages import Greeting, Refusal
from mindgen.parallel.node_placement import NodePlacement

MASTER = "127.0.0.2"
IDENTITY = Identity({"tp": 2, "dp": 1}, "demo", "1a2b", {"A1": "77", "A2": "88"})


def free_port() -> int:
    with socket.create_server((MASTER, 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def plan():
    return NodePlacement(2, 0, 1, 2, (MASTER, free_port()), seconds=5.0)


def meet(plan, others, identity=IDENTITY):
    """What becomes of node 0, and of the others, each with its plan and identity: peers or errors."""

    def outcome(function, *arguments):
        try:
            return function(*arguments)
        except LaunchError as error:
            return error

    with ThreadPoolExecutor(1 + len(others)) as threads:
        first = threads.submit(outcome, await_nodes, plan, identity)
        rest = [threads.submit(outcome, join_nodes, *other) for other in others]
        return [future.result() for future in (first, *rest)]


def test_all_are_connected_with_each_other(plan):
    plan = replace(plan, num_nodes=3, ranks_per_replica=6)
    all_peers = meet(plan, [(replace(plan, node=node), IDENTITY) for node in (2, 1)])
    all_peers = [all_peers[0], all_peers[2], all_peers[1]]
    for node, peers in enumerate(all_peers):
        assert sorted(peers.sockets) == [each for each in range(3) if each != node]
        for peer, connection in peers.sockets.items():
            connection.sendall(bytes([16 * node + peer]))
    for node, peers in enumerate(all_peers):
        for peer, connection in peers.sockets.items():
            assert connection.recv(2) == bytes([16 * peer + node])
        peers.close()


def test_node_1_waits_for_node_0(plan):
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(join_nodes, replace(plan, node=1), IDENTITY)
        time.sleep(0.5)
        await_nodes(plan, IDENTITY).close()
        other.result().close()


@pytest.mark.parametrize(
    ("change", "other", "reason"),
    [
        ({}, replace(IDENTITY, sizes={"tp": 4, "dp": 1}), "its sizes are tp 4, dp 1, node 0's are tp 2, dp 1"),
        (
            {}, replace(IDENTITY, model="/models/x", model_digest="ffff"),
            "its model is /models/x (ffff), node 0's is demo (1a2b): they must have the same files",
        ),
        ({}, replace(IDENTITY, adapters={"A1": "78", "A2": "88"}), "its adapter A1 is 78, node 0's is 77"),
        ({}, replace(IDENTITY, adapters={"A1": "77"}), "its adapter A2 is missing, node 0's is 88"),
        ({"num_nodes": 3, "ranks_per_replica": 3}, IDENTITY, "its nnodes is 3, node 0's is 2"),
    ],
)  # fmt: skip
def test_who_is_different_is_refused_and_both_say_why(change, other, reason, plan, capsys):
    plan = replace(plan, seconds=1.0)
    first, second = meet(plan, [(replace(plan, node=1, **change), other)])
    assert f"node 1 at 127.0.0.1 is refused: {reason}" in str(second)
    assert f"node 1 has not come to {MASTER}:{plan.address[1]} within 1 seconds; node 1 at" in str(first)
    assert reason in str(first) and reason in capsys.readouterr().err


def test_a_node_that_is_there_twice_is_refused_and_the_first_is_served(plan):
    plan = replace(plan, num_nodes=3, ranks_per_replica=3, seconds=2.0)
    first, *others = meet(plan, [(replace(plan, node=1), IDENTITY), (replace(plan, node=1), IDENTITY)])
    assert "node 2 has not come" in str(first)
    refused, told = sorted(map(str, others))
    assert refused == "node 1 at 127.0.0.1 is refused: node_rank 1 is taken by 127.0.0.1"
    assert told == str(first)


def test_a_node_may_come_again(plan):
    plan = replace(plan, num_nodes=3, ranks_per_replica=3)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(await_nodes, plan, IDENTITY)
        early = meeting._connect_to_master(plan)  # as node 1, which then is interrupted
        Channel(early).send(Greeting(meeting.PROTOCOL, 3, 1, IDENTITY.sizes, "demo", "1a2b", IDENTITY.adapters, 1))
        time.sleep(0.3)
        early.close()
        others = [threads.submit(join_nodes, replace(plan, node=node), IDENTITY) for node in (1, 2)]
        for each in (first, *others):
            each.result().close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, (5).to_bytes(8, "little") + b"hello"])
def test_strangers_are_turned_away(said, plan, capsys):
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(await_nodes, plan, IDENTITY)
        stranger = meeting._connect_to_master(plan)
        stranger.sendall(said)
        join_nodes(replace(plan, node=1), IDENTITY).close()
        first.result().close()
    assert stranger.recv(1) == b""
    stranger.close()
    assert "somebody at 127.0.0.1 is no node of mindgen and was turned away" in capsys.readouterr().err


def test_another_version_is_refused(plan):
    plan = replace(plan, seconds=1.0)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(await_nodes, plan, IDENTITY)
        channel = Channel(meeting._connect_to_master(plan))
        channel.send(Greeting(meeting.PROTOCOL + 1, 2, 1, {}, "", "", {}, 1))
        assert "install the same mindgen on both" in channel.receive(Refusal).reason
        with pytest.raises(LaunchError, match="node 1 has not come"):
            first.result()
        channel.close()


def test_nobody_comes_or_answers(plan):
    plan = replace(plan, seconds=0.3)
    with pytest.raises(LaunchError, match=r"node 1 has not come to 127.0.0.2:\d+ within 0 seconds"):
        await_nodes(plan, IDENTITY)
    with pytest.raises(LaunchError, match="Connection refused.*start it there, or correct master_addr and master_port"):
        join_nodes(replace(plan, node=1), IDENTITY)


def test_something_else_listens_there(plan):
    with socket.create_server(plan.address) as listener:
        with pytest.raises(LaunchError, match="Address already in use: choose another master_port"):
            await_nodes(plan, IDENTITY)
        thread = threading.Thread(target=lambda: listener.accept()[0].sendall(np.ones(64).tobytes()))
        thread.start()
        with pytest.raises(LaunchError, match="is no node 0 of mindgen"):
            join_nodes(replace(plan, node=1), IDENTITY)
        thread.join()


@pytest.mark.parametrize(
    ("host", "reason"),
    [("192.0.2.1", "must be one of this machine's addresses"), ("no.such.host.invalid", "is no address")],
)
def test_a_master_elsewhere_is_said(host, reason, plan):
    with pytest.raises(LaunchError, match=reason):
        await_nodes(replace(plan, address=(host, 1234)), IDENTITY)


@pytest.mark.parametrize(
    ("num_nodes", "num_replicas", "ranks", "reason"),
    [
        (2, 1, 3, "3 ranks (1 replicas of 3) do not divide among 2 nodes"),
        (2, 1, 1, "1 ranks"),
        (4, 2, 2, "replica 0 would lie on nodes 0 to 1"),
        (3, 2, 3, "replica 0 would lie on nodes 0 to 1"),
    ],
)
def test_ranks_that_do_not_fit_the_nodes(num_nodes, num_replicas, ranks, reason):
    with pytest.raises(ConfigError) as raised:
        NodePlacement(num_nodes, 0, num_replicas, ranks, (MASTER, 1), 1.0)
    assert reason in str(raised.value)


def test_ranks_and_replicas_are_divided_in_their_order():
    spanning = NodePlacement(2, 0, 1, 4, (MASTER, 1), 1.0)
    assert spanning.spans and [spanning.workers(node) for node in range(2)] == [range(2), range(2, 4)]
    whole = NodePlacement(2, 0, 4, 3, (MASTER, 1), 1.0)
    assert not whole.spans and [whole.workers(node) for node in range(2)] == [range(2), range(2, 4)]
