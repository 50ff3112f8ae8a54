"""The rank table of this machine, and the names that MindFormers' tools give to the files."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindgen.errors import RankTableError, UsageError
from mindgen.parallel.launch.machine import (
    HCCN_CONF,
    LOOPBACK,
    ascend_addresses,
    ascend_devices,
    host_address,
    loopback_addresses,
)
from mindgen.parallel.launch.rank_table import Device, RankTable, Server

DEVICE_TARGETS = ("auto", "Ascend", "CPU")


@dataclass(frozen=True, slots=True)
class MadeTable:
    """A rank table of one server.

    Attributes:
        note: what a choice that nobody made explicitly needs to be told, or "".
    """

    table: RankTable
    file_name: str
    note: str


def make_rank_table(
    devices: range, visible: Sequence[int] | None, server_ip: str | None, target: str, hccn_conf: Path = HCCN_CONF
) -> MadeTable:
    """The table of these devices of this machine.

    Args:
        visible: the device behind each number, where a container shows only some devices; None for all, unchanged.
        target: one of DEVICE_TARGETS; auto takes the CPU where no NPU's address is known.

    Raises:
        UsageError: there are fewer visible devices than that, or the server's address is none.
        RankTableError: the devices' addresses, or this machine's, are not known.
    """
    if visible is not None and devices.stop > len(visible):
        raise UsageError(
            f"the device range ends at {devices.stop}, and there are {len(visible)} visible devices: it counts them, "
            f"so [0,{len(visible)}) is all of them"
        )
    device_ids = [visible[index] for index in devices] if visible is not None else list(devices)
    addresses, note = _addresses(device_ids, target, hccn_conf)
    is_cpu = all(address.startswith("127.") for address in addresses.values())
    server_id = _server_id(server_ip, is_cpu)
    members = [Device(device_id, addresses[device_id], rank) for rank, device_id in enumerate(device_ids)]
    name = f"hccl_{len(members)}p_{''.join(map(str, devices))}_{server_id}.json"
    return MadeTable(RankTable((Server(server_id, tuple(members)),)), name, note)


def merged_name(table: RankTable) -> str:
    return f"hccl_{len(table.servers)}s_{table.num_ranks}p.json"


def _addresses(device_ids: Sequence[int], target: str, hccn_conf: Path) -> tuple[dict[int, str], str]:
    if target == "CPU":
        return loopback_addresses(device_ids), ""
    try:
        return ascend_addresses(device_ids, hccn_conf), ""
    except RankTableError as error:
        if target == "Ascend" or ascend_devices():
            raise RankTableError(f"{error}; on a machine without NPUs use --device_target CPU") from error
        return loopback_addresses(device_ids), f"{error}: the entries are loopback addresses, for a CPU"


def _server_id(server_ip: str | None, is_cpu: bool) -> str:
    if server_ip:
        try:
            return str(ipaddress.ip_address(server_ip))
        except ValueError:
            raise UsageError(f"server_ip {server_ip!r} is no IP address") from None
    found = host_address()
    if found is None and not is_cpu:
        raise RankTableError("this machine's name does not resolve to an address: give it as --server_ip")
    return found or LOOPBACK
