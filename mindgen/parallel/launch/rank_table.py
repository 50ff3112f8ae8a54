"""Rank tables, version 1.0: which device of which server is which rank, as Ascend's collectives read them."""

import ipaddress
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindgen.errors import RankTableError
from mindgen.system.atomic import whole_file
from mindgen.system.json_file import read_json_object

_VERSION = "1.0"
_COMPLETED = "completed"
_RESERVED = "reserve"
_MAX_SERVER_ID = 64


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a server, and the rank of the process that drives it."""

    device_id: int
    device_ip: str
    rank_id: int


@dataclass(frozen=True, slots=True)
class Server:
    """A machine; server_id is its address, or a name."""

    server_id: str
    devices: tuple[Device, ...]
    host_nic_ip: str = _RESERVED


@dataclass(frozen=True, slots=True)
class RankTable:
    """Servers with devices, whose ranks are 0, 1, 2...

    Raises:
        RankTableError: a server or device is there twice, an address is bad, or ranks are missing or there twice.
    """

    servers: tuple[Server, ...]

    def __post_init__(self) -> None:
        _refuse_repeated("server", [server.server_id for server in self.servers])
        for server in self.servers:
            if not 0 < len(server.server_id) <= _MAX_SERVER_ID:
                raise RankTableError(f"server_id must have 1 to {_MAX_SERVER_ID} characters, not {server.server_id!r}")
            if not server.devices:
                raise RankTableError(f"server {server.server_id} has no device")
            _refuse_repeated(f"server {server.server_id}: device", [device.device_id for device in server.devices])
        devices = [device for server in self.servers for device in server.devices]
        for device in devices:
            _check_address(device)
        # Without a network of their own, the devices of every server are on its loopback.
        addresses = [device.device_ip for device in devices]
        _refuse_repeated("device_ip", [each for each in addresses if not ipaddress.ip_address(each).is_loopback])
        ranks = [device.rank_id for device in devices]
        _refuse_repeated("rank", ranks)
        if sorted(ranks) != list(range(len(ranks))):
            raise RankTableError(f"ranks must be 0 to {len(ranks) - 1} without a gap, not {_listed(sorted(ranks))}")

    @property
    def num_ranks(self) -> int:
        return sum(len(server.devices) for server in self.servers)

    def as_json(self) -> dict[str, Any]:
        servers = [
            {
                "server_id": server.server_id,
                "device": [
                    {"device_id": str(each.device_id), "device_ip": each.device_ip, "rank_id": str(each.rank_id)}
                    for each in server.devices
                ],
                "host_nic_ip": server.host_nic_ip,
            }
            for server in self.servers
        ]
        return {
            "version": _VERSION, "server_count": str(len(servers)), "server_list": servers, "status": _COMPLETED,
        }  # fmt: skip


def read_rank_table(path: Path) -> RankTable:
    """The table in a file.

    Raises:
        RankTableError: the file is missing, or is no rank table of version 1.0; it says what is wrong.
    """
    raw = read_json_object(path, RankTableError)
    try:
        return _parse_table(raw)
    except RankTableError as error:
        raise RankTableError(f"rank table {path}: {error}") from error


def write_rank_table(table: RankTable, path: Path) -> None:
    """Writes the file as a whole or not at all.

    Raises:
        RankTableError: it cannot be written.
    """
    text = json.dumps(table.as_json(), indent=4) + "\n"
    try:
        with whole_file(path) as unfinished:
            unfinished.write_text(text)
    except OSError as error:
        raise RankTableError(f"cannot write {path}: {error.strerror}") from error


def merge_rank_tables(tables: Sequence[RankTable]) -> RankTable:
    """All servers of the tables in one, the ranks of each table after those of the one before.

    Raises:
        RankTableError: a server, or the address of a device, is in two tables.
    """
    servers: list[Server] = []
    for table in tables:
        first = sum(len(server.devices) for server in servers)
        servers += [
            replace(server, devices=tuple(replace(each, rank_id=first + each.rank_id) for each in server.devices))
            for server in table.servers
        ]
    return RankTable(tuple(servers))


def split_rank_table(table: RankTable, data_parallel: int) -> list[RankTable]:
    """One table for each of the replicas, of as many consecutive ranks each, which count from 0 again.

    Raises:
        RankTableError: the ranks do not divide.
    """
    if data_parallel < 1 or table.num_ranks % data_parallel:
        raise RankTableError(f"{table.num_ranks} ranks do not divide into data_parallel={data_parallel} replicas")
    size = table.num_ranks // data_parallel
    return [_of_ranks(table, range(first, first + size)) for first in range(0, table.num_ranks, size)]


def select_devices(table: RankTable, server_id: str, device_ids: Collection[int]) -> RankTable:
    """The table of these devices of that server alone, their ranks in the table's order.

    Raises:
        RankTableError: a device is not in the table.
    """
    server = next(server for server in table.servers if server.server_id == server_id)
    ranks = {device.device_id: device.rank_id for device in server.devices}
    missing = sorted(set(device_ids) - ranks.keys())
    if missing:
        there = _listed(sorted(ranks))
        raise RankTableError(f"it has no device {_listed(missing)} of server {server_id}, only {there}")
    return _of_ranks(table, {ranks[device_id] for device_id in device_ids})


def _of_ranks(table: RankTable, ranks: Collection[int]) -> RankTable:
    number = {rank: index for index, rank in enumerate(sorted(ranks))}
    servers = [
        replace(
            server,
            devices=tuple(
                replace(each, rank_id=number[each.rank_id]) for each in server.devices if each.rank_id in number
            ),
        )
        for server in table.servers
    ]
    return RankTable(tuple(server for server in servers if server.devices))


def _parse_table(raw: dict[str, Any]) -> RankTable:
    if "group_list" in raw:
        raise RankTableError(
            f"it is of the older form, whose group_list tells no ranks: make one of version {_VERSION} with "
            "tools/hccl_tools.py"
        )
    if raw.get("version") != _VERSION:
        came = repr(raw["version"]) if "version" in raw else "none"
        raise RankTableError(f'expected "version": "{_VERSION}", not {came} (tools/hccl_tools.py writes such tables)')
    if _member(raw, "status", str, "the table") != _COMPLETED:
        raise RankTableError(f'expected "status": "{_COMPLETED}", not {raw["status"]!r}: it is still being made')
    servers = tuple(
        _parse_server(server, f"server_list[{index}]")
        for index, server in enumerate(_member(raw, "server_list", list, "the table"))
    )
    count = _number(raw, "server_count", "the table")
    if count != len(servers) or count == 0:
        raise RankTableError(f"server_count is {count}, and server_list has {len(servers)} servers")
    return RankTable(servers)


def _parse_server(raw: Any, where: str) -> Server:
    devices = tuple(
        Device(
            _number(device, "device_id", f"{where}.device[{index}]"),
            _member(device, "device_ip", str, f"{where}.device[{index}]"),
            _number(device, "rank_id", f"{where}.device[{index}]"),
        )
        for index, device in enumerate(_member(raw, "device", list, where))
    )
    nic = _member(raw, "host_nic_ip", str, where) if "host_nic_ip" in raw else _RESERVED
    return Server(_member(raw, "server_id", str, where), devices, nic)


def _member(raw: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(raw, dict):
        raise RankTableError(f"{where} must be a JSON object, not {type(raw).__name__}")
    if key not in raw:
        raise RankTableError(f"{where} has no {key}")
    if not isinstance(raw[key], kind):
        raise RankTableError(f"{key} of {where} must be a {kind.__name__}, not {raw[key]!r}")
    return raw[key]


def _number(raw: Any, key: str, where: str) -> int:
    """A number, which rank tables write as text: "0"."""
    value = _member(raw, key, object, where)
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_number and not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10):
        raise RankTableError(f'{key} of {where} must be a number like "0", not {value!r}')
    return int(value)


def _check_address(device: Device) -> None:
    try:
        ipaddress.ip_address(device.device_ip)
    except ValueError:
        raise RankTableError(
            f"device_ip of device {device.device_id} (rank {device.rank_id}) is no IP address: {device.device_ip!r}"
        ) from None


def _refuse_repeated(what: str, values: Sequence[Any]) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1}) if len(set(values)) < len(values) else []
    if repeated:
        raise RankTableError(f"{what} {_listed(repeated)} is there twice")


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
