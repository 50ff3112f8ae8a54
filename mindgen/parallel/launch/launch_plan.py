"""Which ranks a launch has, with which devices and in which replicas: decided and checked before any of them starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindgen.errors import RankTableError, UsageError
from mindgen.parallel.launch.machine import LOOPBACK, ascend_devices, free_ports, is_own_address
from mindgen.parallel.launch.rank_table import (
    RankTable,
    Server,
    read_rank_table,
    select_devices,
    split_rank_table,
    write_rank_table,
)
from mindgen.parallel.launch.table_check import check_server
from mindgen.system.environment import Cluster, LaunchedRank


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What is to be launched.

    Attributes:
        num_ranks: on all machines.
        devices: of this machine; None takes those of the rank table, or the first ones.
        data_parallel: how many replicas share the ranks evenly.
        device_target: auto, Ascend or CPU; auto takes the CPU where there is no NPU.
        server_id: which server of the rank table this machine is; None finds out by its addresses.
        num_nodes, node_rank, master_address, master_port: without a rank table, of how many machines this is which,
            and where the first of them is; port 0 is any free one.
    """

    num_ranks: int
    rank_table: Path | None = None
    devices: range | None = None
    data_parallel: int = 1
    device_target: str = "auto"
    server_id: str | None = None
    num_nodes: int = 1
    node_rank: int = 0
    master_address: str = LOOPBACK
    master_port: int = 0


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """The ranks of this machine; cluster is None for those that meet through a rank table.

    Attributes:
        clusters: those whose scheduler is this machine's to start.
        warning: of a rank table that may be of another machine, or "".
    """

    ranks: list[tuple[LaunchedRank, Cluster | None]]
    clusters: list[Cluster]
    is_cpu: bool
    warning: str


@dataclass(frozen=True, slots=True)
class _Members:
    """Devices by global rank; here are the ranks of this machine."""

    device_ids: list[int]
    here: list[int]
    table: RankTable | None
    warning: str = ""


def plan_launch(options: LaunchOptions, folder: Path) -> LaunchPlan:
    """The ranks, each replica of this machine with a folder of its own below this one, its rank table in it.

    Raises:
        UsageError: numbers that do not fit each other.
        RankTableError: a table that is malformed, or lacks the devices.
    """
    if options.num_ranks < 1 or options.data_parallel < 1:
        raise UsageError("the number of ranks and data_parallel must be at least 1")
    if options.num_ranks % options.data_parallel:
        raise UsageError(f"{options.num_ranks} ranks do not divide into data_parallel={options.data_parallel} replicas")
    is_cpu = options.device_target == "CPU" or (options.device_target == "auto" and not ascend_devices())
    members = _from_table(options, options.rank_table, is_cpu) if options.rank_table else _from_devices(options)
    world_size = options.num_ranks // options.data_parallel
    replicas = sorted({rank // world_size for rank in members.here})
    if is_cpu and len(replicas) * world_size != len(members.here):
        raise UsageError("on a CPU all ranks of a replica must be on one machine: raise data_parallel")
    paths = dict(zip(replicas, _replica_folders(options, members.table, folder, replicas), strict=True))
    clusters = _clusters(options, world_size, is_cpu)
    uses_cluster = is_cpu or members.table is None
    ranks = []
    for rank in members.here:
        replica = rank // world_size
        launched = LaunchedRank(
            rank % world_size, world_size, members.device_ids[rank], replica, options.data_parallel, *paths[replica]
        )
        ranks.append((launched, clusters[replica] if uses_cluster else None))
    if is_cpu:
        clusters = [clusters[replica] for replica in replicas]
    elif not uses_cluster or 0 not in members.here:  # the first machine has the schedulers
        clusters = []
    return LaunchPlan(ranks, clusters, is_cpu, members.warning)


def own_server(table: RankTable, path: Path, server_id: str | None) -> Server:
    """The server of the table, read from that path, that this machine is: the one named, the only one, or by address.

    Raises:
        RankTableError: none is, or several are.
    """
    known = ", ".join(server.server_id for server in table.servers)
    if server_id is not None:
        named = [server for server in table.servers if server.server_id == server_id]
        if not named:
            raise RankTableError(f"rank table {path} has no server {server_id}, only {known}")
        return named[0]
    own = table.servers if len(table.servers) == 1 else [s for s in table.servers if is_own_address(s.server_id)]
    if len(own) != 1:
        raise RankTableError(
            f"rank table {path}: {len(own)} of its servers ({known}) have an address of this machine: "
            "say which one this is with --server_ip"
        )
    return own[0]


def _from_devices(options: LaunchOptions) -> _Members:
    if not 0 <= options.node_rank < options.num_nodes or options.num_ranks % options.num_nodes:
        raise UsageError(
            f"{options.num_ranks} ranks, on {options.num_nodes} machines of which this is number {options.node_rank}: "
            "they must divide, and machines count from 0"
        )
    if options.num_nodes > 1 and not options.master_port:
        raise UsageError("several machines must know the port of the first: give the same master_port on each")
    local = options.num_ranks // options.num_nodes
    devices = options.devices if options.devices is not None else range(local)
    if len(devices) != local:
        raise UsageError(f"{_range_text(devices)}, and {local} ranks are to start on this machine")
    first = options.node_rank * local
    return _Members([*devices] * options.num_nodes, [*range(first, first + local)], None)


def _from_table(options: LaunchOptions, path: Path, is_cpu: bool) -> _Members:
    table = read_rank_table(path)
    server = own_server(table, path, options.server_id)
    if options.devices is not None:
        if len(table.servers) == 1 and len(options.devices) != options.num_ranks:
            raise UsageError(f"{_range_text(options.devices)}, and {options.num_ranks} ranks are to start")
        try:
            chosen = select_devices(table, server.server_id, options.devices)
        except RankTableError as error:
            raise RankTableError(f"rank table {path}: {error}") from error
        if len(table.servers) == 1:
            table, server = chosen, chosen.servers[0]
        elif chosen.num_ranks != len(server.devices):
            raise UsageError(
                f"{_range_text(options.devices)}, and server {server.server_id} has {len(server.devices)} in {path}"
            )
    if table.num_ranks != options.num_ranks:
        raise RankTableError(f"rank table {path} has {table.num_ranks} ranks, and {options.num_ranks} are to start")
    check = check_server(server, [] if is_cpu else ascend_devices())
    if check.wrong:
        raise RankTableError(f"rank table {path}: {check.wrong}: make it again with tools/hccl_tools.py")
    by_rank = sorted((each for server in table.servers for each in server.devices), key=lambda each: each.rank_id)
    here = sorted(device.rank_id for device in server.devices)
    is_told = server.server_id == options.server_id
    warning = f"rank table {path}: {check.doubtful}" if check.doubtful and not is_told else ""
    return _Members([device.device_id for device in by_rank], here, table, warning)


def _replica_folders(
    options: LaunchOptions, table: RankTable | None, folder: Path, replicas: Sequence[int]
) -> list[tuple[Path, Path | None]]:
    """A folder for each of these replicas, and its rank table: the one that was given where that is it already."""
    folders = [folder / str(replica) for replica in replicas]
    for each in folders:
        each.mkdir(mode=0o700)
    if table is None or options.rank_table is None:
        return [(each, None) for each in folders]
    if options.data_parallel == 1 and table == read_rank_table(options.rank_table):
        return [(folders[0], options.rank_table.absolute())]
    paths = [each / "rank_table.json" for each in folders]
    parts = split_rank_table(table, options.data_parallel)
    for path, replica in zip(paths, replicas, strict=True):
        write_rank_table(parts[replica], path)
    return list(zip(folders, paths, strict=True))


def _clusters(options: LaunchOptions, world_size: int, is_cpu: bool) -> list[Cluster]:
    """MindSpore's clusters, one for each replica; on a CPU a replica is on one machine, and so is its scheduler."""
    ports = [options.master_port + replica for replica in range(options.data_parallel)]
    if not options.master_port:
        ports = free_ports(options.data_parallel)
    host = LOOPBACK if is_cpu else options.master_address
    return [Cluster(world_size, host, port) for port in ports]


def _range_text(devices: range) -> str:
    count = f"{len(devices)} device" + ("s" if len(devices) > 1 else "")
    return f"the device range [{devices.start},{devices.stop}) has {count}"
