"""The one module that reads or sets environment variables and process-wide state."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mindgen.errors import LaunchError

_OP_PLUGIN = "MS_OP_PLUGIN_PATH"
_RANK = {
    "rank": "MINDGEN_RANK",
    "world_size": "MINDGEN_WORLD_SIZE",
    "replica": "MINDGEN_REPLICA",
    "num_replicas": "MINDGEN_NUM_REPLICAS",
    "device_id": "DEVICE_ID",
}
_RENDEZVOUS = "MINDGEN_RENDEZVOUS"
_RANK_TABLE = "RANK_TABLE_FILE"
_DRY_RUN = "MS_SIMULATION_LEVEL"
_CLUSTER = ("MS_ROLE", "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_NODE_ID")
_TOLD = {*_RANK.values(), "RANK_ID", "RANK_SIZE", _RENDEZVOUS, _RANK_TABLE, *_CLUSTER}


def set_op_plugin(path: str) -> None:
    """Tells MindSpore, which must not be imported yet, where the CPU op plugin is."""
    os.environ[_OP_PLUGIN] = path


def op_plugin() -> str | None:
    """The CPU op plugin that MindSpore was told of, or None."""
    return os.environ.get(_OP_PLUGIN)


def quiet_mindspore() -> None:
    """Keeps MindSpore's C++ log quiet unless the user has chosen a level; its errors come as exceptions as well."""
    os.environ.setdefault("GLOG_v", "4")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where MindSpore's scheduler of a replica's ranks listens."""

    num_workers: int
    host: str
    port: int

    def as_environment(self, role: str, node_id: int) -> dict[str, str]:
        """MindSpore's variables for a node of the cluster; role is MS_WORKER or MS_SCHED."""
        values = (role, str(self.num_workers), self.host, str(self.port), str(node_id))
        return dict(zip(_CLUSTER, values, strict=True))


@dataclass(frozen=True, slots=True)
class LaunchedRank:
    """What the launcher tells a process: one rank of the group of ranks that holds one replica of the model.

    Attributes:
        rank: within the replica, 0 to world_size - 1.
        world_size: the ranks of the replica.
        replica: which of the num_replicas; the first one of a machine gives the others there their prompts.
        rendezvous: a folder of the replica's own, for sockets and the names of shared memory; the launcher removes it.
        rank_table: the replica's, which Ascend's collectives read, if there is one.
    """

    rank: int
    world_size: int
    device_id: int
    replica: int
    num_replicas: int
    rendezvous: Path
    rank_table: Path | None = None

    @property
    def global_rank(self) -> int:
        """Among the ranks of all replicas, of which each has consecutive ones."""
        return self.replica * self.world_size + self.rank

    def local_replicas(self) -> range:
        """Those of this machine, for which the launcher has made folders side by side."""
        numbers = sorted(int(each.name) for each in self.rendezvous.parent.iterdir() if each.name.isdecimal())
        return range(numbers[0], numbers[-1] + 1)

    def as_environment(self) -> dict[str, str]:
        """The variables that say so: launched_rank's, and those that MindSpore reads on Ascend."""
        variables = {variable: str(getattr(self, name)) for name, variable in _RANK.items()}
        variables |= {"RANK_ID": str(self.rank), "RANK_SIZE": str(self.world_size), _RENDEZVOUS: str(self.rendezvous)}
        return variables if self.rank_table is None else variables | {_RANK_TABLE: str(self.rank_table)}


def launched_rank() -> LaunchedRank | None:
    """Which rank this process is, or None where no launcher started it.

    Raises:
        LaunchError: the launcher's variables are not all there, or no numbers.
    """
    if _RENDEZVOUS not in os.environ:
        return None
    try:
        numbers = {name: int(os.environ[variable]) for name, variable in _RANK.items()}
    except KeyError as error:
        raise LaunchError(f"{_RENDEZVOUS} is set, as `mindgen launch` does, and {error.args[0]} is not") from error
    except ValueError as error:
        raise LaunchError(f"the variables of `mindgen launch` must be numbers: {error}") from error
    table = os.environ.get(_RANK_TABLE)
    return LaunchedRank(**numbers, rendezvous=Path(os.environ[_RENDEZVOUS]), rank_table=Path(table) if table else None)


def for_child(variables: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for another: with these variables, and with the defaults that nobody has set.

    What a launcher has told this process, and the op plugin of its MindSpore, do not hold for the other.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in {*_TOLD, _OP_PLUGIN}}
    return {**defaults, **inherited, **variables}


def ascend_home() -> Path | None:
    """The folder of CANN that its set_env.sh has announced."""
    given = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    return Path(given) if given else None


def is_dry_run() -> bool:
    """Whether MindSpore only acts as if there were NPUs, and as if graphs ran on them."""
    return os.environ.get(_DRY_RUN, "") != ""


def hide_other_ranks() -> None:
    """Takes from MindSpore what it would meet the other ranks by: in its dry run there are none, nor devices."""
    for name in (_RANK_TABLE, *_CLUSTER):
        os.environ.pop(name, None)


def is_mindspore_imported() -> bool:
    return "mindspore" in sys.modules


def cache_folder() -> Path:
    """Where compiled code is kept: $MINDGEN_CACHE, or mindgen in the user's cache folder."""
    given = os.environ.get("MINDGEN_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindgen"


def environment_variable(name: str) -> str | None:
    """A variable that a configuration file of the user names."""
    return os.environ.get(name)


def input_data() -> str | None:
    """The prompts that the launchers hand over: a text, or the name of a file."""
    return os.environ.get("INPUT_DATA")


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Lets the first Ctrl-C wait, so that nothing is cut off half done; what it yields tells whether one came.

    The second one raises KeyboardInterrupt as ever. Outside the main thread, which alone gets them, nothing changes.
    """
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            signal.default_int_handler(number, frame)
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    previous = signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def noted_signals(numbers: Sequence[signal.Signals]) -> Iterator[list[int]]:
    """Lets these signals do nothing but come to stand in the list that it yields.

    Those that are ignored, as nohup does, stay so; outside the main thread, which alone gets them, nothing changes.
    """
    came: list[int] = []
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    previous = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


@contextmanager
def raised_termination() -> Iterator[None]:
    """SIGTERM raises Terminated, unless it is ignored or this is not the main thread, which alone gets it."""

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Terminated

    previous = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or previous == signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
