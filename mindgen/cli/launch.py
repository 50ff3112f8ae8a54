"""`mindgen launch`: one process for each device. Needs no MindSpore."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mindgen.errors import UsageError
from mindgen.parallel.launch.device_range import launch_range
from mindgen.parallel.launch.launch_plan import LaunchOptions
from mindgen.parallel.launch.launcher import Supervision, find_command, launch
from mindgen.parallel.launch.make_rank_table import DEVICE_TARGETS
from mindgen.parallel.launch.rank_table import read_rank_table

_DATA_PARALLEL = "--data_parallel"
_ITS_NAMES = (_DATA_PARALLEL, "--data_parallel_size", "--dp")  # of commands: MindFormers' scripts, `mindgen generate`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; the command to launch comes after --."""
    add = parser.add_argument
    add("--ranks", type=int, metavar="N", help="how many, on all machines (default: those of the table or the devices)")
    add("--rank_table", type=Path, metavar="FILE", help="as tools/hccl_tools.py writes it")
    add("--devices", metavar="RANGE", help="of this machine: [0,8] or [0,8), both of them 0 to 7")
    add(
        _DATA_PARALLEL,
        type=int,
        metavar="N",
        help="replicas that share the ranks (default: as the command has it, or 1)",
    )
    add("--device_target", choices=DEVICE_TARGETS, default="auto")
    add("--log_dir", type=Path, default=Path("output", "log"), metavar="DIR", help="default: output/log")
    add("--grace_seconds", type=float, default=10.0, metavar="S", help="from telling ranks to end to killing them")
    add(
        "--stopped_seconds", type=float, default=60.0, metavar="S",
        help="after which a rank that a signal has stopped has failed",
    )  # fmt: skip
    add("--server_ip", metavar="IP", help="which server of the rank table this machine is")
    add("--nnodes", type=int, default=1, metavar="N", help="how many machines, where there is no rank table")
    add("--node_rank", type=int, default=0, metavar="N", help="which of them this is")
    add("--master_addr", default="127.0.0.1", metavar="IP", help="the first of them")
    add(
        "--master_port",
        type=int,
        default=0,
        metavar="PORT",
        help="of MindSpore's scheduler there (default: a free one)",
    )
    add("--script_folder", type=Path, action="append", default=[], metavar="DIR", help="has scripts that are not here")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("words", nargs="*", metavar="-- COMMAND", help="what each rank runs; a single word is split as a shell does")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Launches the command, and waits for it.

    Raises:
        MindgenError: of a rank that failed, with its exit code; or what does not fit.
    """
    command = find_command(arguments.words, arguments.script_folder)
    devices = None if arguments.devices is None else launch_range(arguments.devices)
    if not 0 <= arguments.master_port < 2**16 or arguments.nnodes < 1:
        raise UsageError("--master_port must be a port, and --nnodes at least 1")
    if arguments.grace_seconds < 0 or arguments.stopped_seconds < 0:
        raise UsageError("--grace_seconds and --stopped_seconds must not be negative")
    options = LaunchOptions(
        num_ranks=_num_ranks(arguments, devices),
        rank_table=arguments.rank_table,
        devices=devices,
        data_parallel=_data_parallel_of(command) if arguments.data_parallel is None else arguments.data_parallel,
        device_target=arguments.device_target,
        server_id=arguments.server_ip,
        num_nodes=arguments.nnodes,
        node_rank=arguments.node_rank,
        master_address=arguments.master_addr,
        master_port=arguments.master_port,
    )
    launch(command, options, Supervision(arguments.log_dir, arguments.grace_seconds, arguments.stopped_seconds))
    return 0


def _num_ranks(arguments: argparse.Namespace, devices: range | None) -> int:
    if arguments.ranks is not None:
        return arguments.ranks
    if devices is not None:
        return len(devices) * arguments.nnodes
    if arguments.rank_table is not None:
        return read_rank_table(arguments.rank_table).num_ranks
    raise UsageError("say how many ranks to start: --ranks, --devices or --rank_table")


def _data_parallel_of(command: Sequence[str]) -> int:
    """How many replicas the command itself says; 1 without."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in _ITS_NAMES:
            value = value if equals else following
            if not value.isdecimal():
                raise UsageError(f"{name} of the command must be a number, not {value!r}")
            return int(value)
    return 1
