"""Rank tables: what is read, what is refused and why, merging and splitting."""

import json
from pathlib import Path

import pytest
from tables import loopback_json, table_json

from mindgen.errors import RankTableError
from mindgen.parallel.launch.rank_table import (
    Device,
    RankTable,
    Server,
    merge_rank_tables,
    read_rank_table,
    select_devices,
    split_rank_table,
    write_rank_table,
)

# The example of MindFormers' document, whose server is not told.
DOCUMENTED = """{
    "version": "1.0",
    "server_count": "1",
    "server_list": [
        {
            "server_id": "xx.xx.xx.xx",
            "device": [
                {"device_id": "0","device_ip": "192.1.27.6","rank_id": "0"},
                {"device_id": "1","device_ip": "192.2.27.6","rank_id": "1"},
                {"device_id": "2","device_ip": "192.3.27.6","rank_id": "2"},
                {"device_id": "3","device_ip": "192.4.27.6","rank_id": "3"},
                {"device_id": "4","device_ip": "192.1.27.7","rank_id": "4"},
                {"device_id": "5","device_ip": "192.2.27.7","rank_id": "5"},
                {"device_id": "6","device_ip": "192.3.27.7","rank_id": "6"},
                {"device_id": "7","device_ip": "192.4.27.7","rank_id": "7"}],
             "host_nic_ip": "reserve"
        }
    ],
    "status": "completed"
}"""


def read(tmp_path: Path, content: object) -> RankTable:
    path = tmp_path / "table.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_rank_table(path)


def server(name: str, *devices: tuple[int, int], network: int = 1) -> Server:
    return Server(name, tuple(Device(device, f"10.0.{network}.{device + 1}", rank) for device, rank in devices))


def test_the_documented_table_is_read_and_written_as_it_is(tmp_path):
    table = read(tmp_path, DOCUMENTED)
    assert table.num_ranks == 8
    assert table.servers[0].server_id == "xx.xx.xx.xx"
    assert table.servers[0].devices[5] == Device(5, "192.2.27.7", 5)
    write_rank_table(table, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(DOCUMENTED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "table.json"]


def test_numbers_may_be_numbers(tmp_path):
    raw = loopback_json(2)
    raw["server_count"] = 1
    raw["server_list"][0]["device"][1] |= {"device_id": 1, "rank_id": 1}
    assert read(tmp_path, raw) == read(tmp_path, loopback_json(2))


def edited(**changes: object) -> dict[str, object]:
    return {key: value for key, value in (loopback_json(2) | changes).items() if value is not None}


def with_device(**changes: object) -> dict[str, object]:
    raw = loopback_json(2)
    device = raw["server_list"][0]["device"][1] | changes
    raw["server_list"][0]["device"][1] = {key: value for key, value in device.items() if value is not None}
    return raw


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object, not list"),
        ('{"version": "1.0", "version": "1.0"}', "version stands there more than once"),
        (edited(version="0.1"), 'expected "version": "1.0", not \'0.1\''),
        (edited(version=None), 'expected "version": "1.0", not none'),
        ({"status": "completed", "group_count": "1", "group_list": []}, "older form, whose group_list tells no ranks"),
        (edited(status="initializing"), 'expected "status": "completed", not \'initializing\''),
        (edited(status=None), "the table has no status"),
        (edited(server_list=None), "the table has no server_list"),
        (edited(server_list={}), "server_list of the table must be a list"),
        (edited(server_list=["a"]), "server_list[0] must be a JSON object, not str"),
        (edited(server_count="2"), "server_count is 2, and server_list has 1 servers"),
        (edited(server_count=None), "the table has no server_count"),
        (edited(server_count="one"), "server_count of the table must be a number like \"0\", not 'one'"),
        (edited(server_list=[], server_count="0"), "server_count is 0"),
        (edited(server_list=[{"server_id": "a", "device": []}]), "server a has no device"),
        (edited(server_list=[{"device": []}]), "server_list[0] has no server_id"),
        (edited(server_list=[{"server_id": "a"}]), "server_list[0] has no device"),
        (table_json(("", [(0, "10.0.0.1", 0)])), "server_id must have 1 to 64 characters"),
        (with_device(device_id=None), "server_list[0].device[1] has no device_id"),
        (with_device(device_ip=None), "server_list[0].device[1] has no device_ip"),
        (with_device(rank_id=None), "server_list[0].device[1] has no rank_id"),
        (with_device(device_id="-1"), 'device_id of server_list[0].device[1] must be a number like "0"'),
        (with_device(device_id=True), 'device_id of server_list[0].device[1] must be a number like "0"'),
        (with_device(device_id="0"), "server 127.0.0.1: device 0 is there twice"),
        (with_device(device_ip="192.168.1.256"), "device_ip of device 1 (rank 1) is no IP address: '192.168.1.256'"),
        (with_device(rank_id="0"), "rank 0 is there twice"),
        (with_device(rank_id="2"), "ranks must be 0 to 1 without a gap, not 0, 2"),
        (table_json(("a", [(0, "10.0.0.1", 0), (1, "10.0.0.1", 1)])), "device_ip 10.0.0.1 is there twice"),
        (table_json(("a", [(0, "10.0.0.1", 0)]), ("a", [(0, "10.0.0.2", 1)])), "server a is there twice"),
    ],
)
def test_refused(tmp_path, content, message):
    with pytest.raises(RankTableError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)
    assert "table.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RankTableError, match="none.json: No such file"):
        read_rank_table(tmp_path / "none.json")


def test_merged_ranks_follow_each_other():
    first = RankTable((server("a", (4, 1), (5, 0)),))
    second = RankTable((server("b", (0, 0), network=2), server("c", (0, 1), network=3)))
    merged = merge_rank_tables([first, second])
    assert merged == RankTable(
        (server("a", (4, 1), (5, 0)), server("b", (0, 2), network=2), server("c", (0, 3), network=3))
    )


def test_overlapping_tables_do_not_merge():
    table = RankTable((server("a", (0, 0)),))
    with pytest.raises(RankTableError, match="server a is there twice"):
        merge_rank_tables([table, table])
    with pytest.raises(RankTableError, match=r"device_ip 10\.0\.1\.1 is there twice"):
        merge_rank_tables([table, RankTable((server("b", (0, 0)),))])


def test_replicas_are_consecutive_ranks_counted_from_0():
    table = RankTable((server("a", (6, 0), (7, 1), (8, 2)), server("b", (1, 3), (0, 5), (2, 4), network=2)))
    assert split_rank_table(table, 1) == [table]
    assert split_rank_table(table, 2) == [
        RankTable((server("a", (6, 0), (7, 1), (8, 2)),)),
        RankTable((server("b", (1, 0), (0, 2), (2, 1), network=2),)),
    ]
    halves = split_rank_table(table, 3)
    assert halves[1] == RankTable((server("a", (8, 0)), server("b", (1, 1), network=2)))
    for count in (0, 4):
        with pytest.raises(RankTableError, match=f"6 ranks do not divide into data_parallel={count} replicas"):
            split_rank_table(table, count)


def test_some_devices_of_a_server():
    table = RankTable((server("a", (0, 3), (1, 2), (2, 1), (3, 0)),))
    assert select_devices(table, "a", range(1, 3)) == RankTable((server("a", (1, 1), (2, 0)),))
    with pytest.raises(RankTableError, match="it has no device 4, 5 of server a, only 0, 1, 2, 3"):
        select_devices(table, "a", range(2, 6))
