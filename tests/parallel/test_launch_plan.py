"""Who becomes which rank, and what each process is told."""

import json
from pathlib import Path

import pytest
from tables import loopback_json, table_json

from mindgen.errors import LaunchError, RankTableError, UsageError
from mindgen.parallel.launch.device_range import launch_range
from mindgen.parallel.launch.launch_plan import LaunchOptions, LaunchPlan, plan_launch
from mindgen.parallel.launch.launcher import find_command
from mindgen.parallel.launch.rank_table import read_rank_table
from mindgen.system.environment import LaunchedRank, for_child, launched_rank

TWO_SERVERS = table_json(
    ("127.0.0.1", [(0, "10.0.0.1", 0), (1, "10.0.0.2", 1)]), ("203.0.113.9", [(0, "10.0.1.1", 2), (1, "10.0.1.2", 3)])
)


def write(tmp_path: Path, raw: object) -> Path:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(raw))
    return path


def plan(tmp_path: Path, num_ranks: int, **options: object) -> LaunchPlan:
    folder = tmp_path / "rendezvous"
    folder.mkdir()
    return plan_launch(LaunchOptions(num_ranks, **{"device_target": "CPU", **options}), folder)


def test_without_a_table_ranks_have_devices_in_order(tmp_path):
    made = plan(tmp_path, 3, devices=range(4, 7))
    assert [(rank.rank, rank.world_size, rank.device_id) for rank, _ in made.ranks] == [(0, 3, 4), (1, 3, 5), (2, 3, 6)]
    assert {rank.rendezvous for rank, _ in made.ranks} == {tmp_path / "rendezvous" / "0"}
    assert (tmp_path / "rendezvous" / "0").stat().st_mode & 0o777 == 0o700
    assert {cluster for _, cluster in made.ranks} == {*made.clusters}


def test_replicas_have_tables_folders_and_clusters_of_their_own(tmp_path):
    made = plan(tmp_path, 4, rank_table=write(tmp_path, loopback_json(4)), data_parallel=2)
    ranks = [rank for rank, _ in made.ranks]
    assert [(r.replica, r.rank, r.global_rank, r.device_id) for r in ranks] == [
        (0, 0, 0, 0), (0, 1, 1, 1), (1, 0, 2, 2), (1, 1, 3, 3)
    ]  # fmt: skip
    assert all((r.num_replicas, r.world_size) == (2, 2) for r in ranks)
    assert [r.rank_table == r.rendezvous / "rank_table.json" for r in ranks] == [True] * 4
    second = read_rank_table(ranks[2].rank_table)
    assert [(d.device_id, d.rank_id) for d in second.servers[0].devices] == [(2, 0), (3, 1)]
    ports = [cluster.port for _, cluster in made.ranks]
    assert ports[0] == ports[1] != ports[2] == ports[3]


def test_a_table_that_fits_is_handed_on_and_a_larger_one_cut_down(tmp_path):
    path = write(tmp_path, loopback_json(4))
    made = plan(tmp_path, 4, rank_table=path, devices=launch_range("[0,4]"))
    assert {rank.rank_table for rank, _ in made.ranks} == {path}
    (tmp_path / "other").mkdir()
    made = plan_launch(LaunchOptions(2, path, launch_range("[2,4]"), device_target="CPU"), tmp_path / "other")
    assert [(rank.rank, rank.device_id) for rank, _ in made.ranks] == [(0, 2), (1, 3)]
    assert read_rank_table(made.ranks[0][0].rank_table).num_ranks == 2


def test_on_ascend_a_table_needs_no_cluster(tmp_path):
    path = write(tmp_path, TWO_SERVERS)
    made = plan(tmp_path, 4, rank_table=path, device_target="Ascend", server_id="203.0.113.9")
    assert [(rank.rank, rank.device_id, cluster) for rank, cluster in made.ranks] == [(2, 0, None), (3, 1, None)]
    assert made.clusters == []


def test_this_server_is_found_by_its_address(tmp_path):
    made = plan(tmp_path, 4, rank_table=write(tmp_path, TWO_SERVERS), data_parallel=2)
    assert [rank.global_rank for rank, _ in made.ranks] == [0, 1]
    assert [cluster.host for cluster in made.clusters] == ["127.0.0.1"]


def test_several_machines_without_a_table(tmp_path):
    made = plan(
        tmp_path, 4, device_target="Ascend", num_nodes=2, node_rank=1, master_address="10.1.1.1", master_port=8118
    )
    assert [(rank.rank, rank.device_id) for rank, _ in made.ranks] == [(2, 0), (3, 1)]
    cluster = made.ranks[0][1]
    assert cluster.as_environment("MS_WORKER", 3) == {
        "MS_ROLE": "MS_WORKER",
        "MS_WORKER_NUM": "4",
        "MS_SCHED_HOST": "10.1.1.1",
        "MS_SCHED_PORT": "8118",
        "MS_NODE_ID": "3",
    }
    assert made.clusters == []


@pytest.mark.parametrize(
    ("raw", "num_ranks", "options", "error", "message"),
    [
        (None, 0, {}, UsageError, "must be at least 1"),
        (None, 3, {"data_parallel": 2}, UsageError, "3 ranks do not divide into data_parallel=2"),
        (None, 2, {"devices": range(3)}, UsageError, "[0,3) has 3 devices, and 2 ranks are to start on this machine"),
        (None, 4, {"num_nodes": 3, "master_port": 1}, UsageError, "they must divide, and machines count from 0"),
        (None, 4, {"num_nodes": 2, "node_rank": 2, "master_port": 1}, UsageError, "they must divide"),
        (None, 4, {"num_nodes": 2}, UsageError, "give the same master_port on each"),
        (None, 4, {"num_nodes": 2, "master_port": 1}, UsageError, "all ranks of a replica must be on one machine"),
        (loopback_json(2), 3, {}, RankTableError, "has 2 ranks, and 3 are to start"),
        (loopback_json(2), 2, {"devices": range(1)}, UsageError, "[0,1) has 1 device, and 2 ranks are to start"),
        (loopback_json(2), 2, {"devices": range(1, 3)}, RankTableError, "it has no device 2 of server 127.0.0.1"),
        (loopback_json(2), 2, {"server_id": "b"}, RankTableError, "has no server b, only 127.0.0.1"),
        (TWO_SERVERS, 4, {}, UsageError, "all ranks of a replica must be on one machine"),
        (TWO_SERVERS, 4, {"devices": range(1)}, UsageError, "and server 127.0.0.1 has 2 in"),
        (
            table_json(("127.0.0.1", [(0, "10.0.0.1", 0)]), ("127.0.0.2", [(0, "10.0.0.2", 1)])), 2, {},
            RankTableError, "2 of its servers (127.0.0.1, 127.0.0.2) have an address of this machine",
        ),
        (
            table_json(("203.0.113.1", [(0, "10.0.0.1", 0)]), ("203.0.113.2", [(0, "10.0.0.2", 1)])), 2, {},
            RankTableError, "say which one this is with --server_ip",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit(tmp_path, raw, num_ranks, options, error, message):
    if raw is not None:
        options = options | {"rank_table": write(tmp_path, raw)}
    with pytest.raises(error) as caught:
        plan(tmp_path, num_ranks, **options)
    assert message in str(caught.value)


def test_a_table_of_another_machine_or_another_day(tmp_path, monkeypatch):
    path = write(tmp_path, table_json(("203.0.113.9", [(0, "10.0.0.1", 0), (1, "10.0.0.2", 1)])))
    assert plan(tmp_path, 2, rank_table=path).warning == f"rank table {path}: 203.0.113.9 is not this machine's address"
    named = LaunchOptions(2, path, server_id="203.0.113.9", device_target="CPU")
    (tmp_path / "named").mkdir()
    assert plan_launch(named, tmp_path / "named").warning == ""
    on_ascend = LaunchOptions(2, path, device_target="Ascend")
    monkeypatch.setattr("mindgen.parallel.launch.launch_plan.ascend_devices", lambda: [0])
    (tmp_path / "fewer").mkdir()
    assert "there is no /dev/davinci1" in plan_launch(on_ascend, tmp_path / "fewer").warning
    monkeypatch.setattr("mindgen.parallel.launch.launch_plan.ascend_devices", lambda: [0, 1])
    now = {0: "10.0.0.1", 1: "10.0.0.7"}
    monkeypatch.setattr("mindgen.parallel.launch.table_check.ascend_addresses", lambda ids: now)
    with pytest.raises(RankTableError, match=r"device 1 has the address 10\.0\.0\.7, not 10\.0\.0\.2: make it again"):
        plan_launch(on_ascend, tmp_path)


def test_what_a_process_is_told_is_what_it_reads(monkeypatch, tmp_path):
    for table in (tmp_path / "table.json", None):
        told = LaunchedRank(1, 4, 5, 2, 3, tmp_path, table)
        for name, value in told.as_environment().items():
            monkeypatch.setenv(name, value)
        if table is None:
            monkeypatch.delenv("RANK_TABLE_FILE")
        assert launched_rank() == told
        assert told.global_rank == 9
    monkeypatch.setenv("MINDGEN_RANK", "one")
    with pytest.raises(LaunchError, match="must be numbers: .*'one'"):
        launched_rank()
    monkeypatch.delenv("MINDGEN_RANK")
    with pytest.raises(LaunchError, match="MINDGEN_RANK is not"):
        launched_rank()
    monkeypatch.delenv("MINDGEN_RENDEZVOUS")
    assert launched_rank() is None


def test_a_child_is_not_told_what_its_parent_was(monkeypatch):
    monkeypatch.setenv("RANK_ID", "3")
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    monkeypatch.setenv("INPUT_DATA", "text")
    child = for_child({"A": "1"}, {"B": "2", "INPUT_DATA": "other"})
    assert child["INPUT_DATA"] == "text" and child["A"] == "1" and child["B"] == "2"
    assert "RANK_ID" not in child and "MS_ROLE" not in child


def test_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("python", "tool"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "there.py").touch()
    (tmp_path / "here.py").touch()
    python, there = str(tmp_path / "bin" / "python"), str(scripts / "there.py")
    assert find_command(["python -u there.py --a 'b c'"], [scripts]) == [python, "-u", there, "--a", "b c"]
    assert find_command(["here.py --a"], [scripts]) == [python, "here.py", "--a"]
    assert find_command(["python", "-m", "module", "other.py"], []) == [python, "-m", "module", "other.py"]
    assert find_command(["tool", "a b"], []) == [str(tmp_path / "bin" / "tool"), "a b"]
    for words, error, message in [
        ([], UsageError, "there is no command to launch"),
        (["  "], UsageError, "there is no command to launch"),
        (["python 'x"], UsageError, "is not whole"),
        (["nothing"], LaunchError, "command not found: nothing"),
        (["python gone.py"], LaunchError, "gone.py is not in the current folder, nor in"),
    ]:
        with pytest.raises(error, match=message):
            find_command(words, [scripts])
