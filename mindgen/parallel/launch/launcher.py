"""Starts one process for each device, waits for them all, and says which failed."""

import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mindgen.errors import LaunchError, UsageError, warn
from mindgen.parallel.launch.launch_plan import LaunchOptions, LaunchPlan, plan_launch
from mindgen.parallel.launch.rank_log import LogTail, last_lines
from mindgen.parallel.launch.supervise import Outcome, Task, run_tasks
from mindgen.system.cores import core_shares
from mindgen.system.environment import Cluster, LaunchedRank, for_child

_LOG_NAME = "mindgen.log"
_NUM_LAST_LINES = 20
_SHARED_MEMORY = Path("/dev/shm")
# What is printed comes to the log at once, so that a rank that is killed has told all.
_DEFAULTS = {"PYTHONUNBUFFERED": "1"}
_SCHEDULER = ["-c", "import mindspore; mindspore.set_device('CPU'); mindspore.communication.init()"]


@dataclass(frozen=True, slots=True)
class Supervision:
    """How ranks are watched.

    Attributes:
        log_folder: gets rank_N/mindgen.log.
        grace_seconds: from telling ranks to end to killing them.
        stopped_seconds: after which a rank that a signal has stopped has failed.
    """

    log_folder: Path
    grace_seconds: float = 10.0
    stopped_seconds: float = 60.0


def launch(command: Sequence[str], options: LaunchOptions, supervision: Supervision) -> None:
    """Runs the command once for each rank of this machine, with the environment that launched_rank() reads.

    Rank 0, or the first here, reads this process's standard input, and its output is shown on standard output as well.

    Raises:
        UsageError, RankTableError: nothing was started, because of what does not fit.
        LaunchError: a rank failed, or a signal came; its last lines are on standard error, its exit code in the error.
    """
    with _rendezvous() as folder, ExitStack() as sockets:
        plan = plan_launch(options, folder)
        if plan.warning:
            warn(f"{plan.warning}; is it of another machine?")
        tasks = _rank_tasks(command, plan, supervision.log_folder)
        tasks[0] = replace(tasks[0], takes_input=True)
        for cluster in plan.clusters:
            demand = sockets.enter_context(_listening(cluster))
            tasks.append(_scheduler_task(command, cluster, demand, supervision.log_folder))
        with _Shown(tasks[0]) as shown:
            outcome = run_tasks(tasks, folder, supervision.grace_seconds, supervision.stopped_seconds, shown)
    _report(outcome, supervision)


def find_command(words: Sequence[str], script_folders: Sequence[Path]) -> list[str]:
    """The command with its program and its script found, as ranks are to run it.

    A script that the current folder does not have is looked for in script_folders; one alone gets python before it;
    and a python that is not on PATH is the one that runs this.

    Raises:
        UsageError: there is no command.
        LaunchError: it is not found; with the exit code that shells give.
    """
    if len(words) == 1:
        try:
            words = shlex.split(words[0])
        except ValueError as error:
            raise UsageError(f"the command {words[0]!r} is not whole: {error}") from error
    if not words:
        raise UsageError("there is no command to launch: put it after --")
    found = ["python", *words] if words[0].endswith(".py") else list(words)
    index = next((i for i, word in enumerate(found[1:], 1) if not word.startswith("-")), None)
    if index is not None and found[index].endswith(".py"):
        found[index] = _find_script(found[index], script_folders)
    program = shutil.which(found[0])
    if program is None and found[0] in ("python", "python3"):
        program = sys.executable
    if program is None:
        raise LaunchError(f"command not found: {found[0]}", 127)
    return [program, *found[1:]]


class _Shown:
    """The log of the first rank, on standard output; there is none before the rank has been started."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._tail: LogTail | None = None

    def __call__(self) -> None:
        if self._tail is None:
            self._tail = LogTail(self._task.log, f"[{self._task.name}] ", sys.stdout)
        self._tail.show()

    def __enter__(self) -> "_Shown":
        return self

    def __exit__(self, *_: object) -> None:
        if self._tail is not None:
            self._tail.show(is_last=True)


@contextmanager
def _rendezvous() -> Iterator[Path]:
    """A new folder for this user alone, removed at the end; where there is shared memory, files in it are of that."""
    is_usable = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
    folder = Path(tempfile.mkdtemp(prefix="mindgen-", dir=_SHARED_MEMORY if is_usable else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listening(cluster: Cluster) -> socket.socket:
    """Waits for the first node of a cluster: only ranks that use MindSpore's own collectives need its scheduler."""
    try:
        return socket.create_server((cluster.host, cluster.port))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise LaunchError(f"cannot listen on {cluster.host}:{cluster.port}: {reason}") from error


def _rank_tasks(command: Sequence[str], plan: LaunchPlan, log_folder: Path) -> list[Task]:
    replicas = sorted({rank.replica for rank, _ in plan.ranks})
    shares = core_shares(len(replicas)) if plan.is_cpu else [None] * len(replicas)
    cores = dict(zip(replicas, shares, strict=True))
    return [
        replace(
            _task(f"rank {rank.global_rank}", command, _variables(rank, cluster), log_folder), cores=cores[rank.replica]
        )
        for rank, cluster in plan.ranks
    ]


def _scheduler_task(command: Sequence[str], cluster: Cluster, demand: socket.socket, log_folder: Path) -> Task:
    python = command[0] if Path(command[0]).name.startswith("python") else sys.executable
    variables = cluster.as_environment("MS_SCHED", 0)
    return replace(_task(f"scheduler {cluster.port}", [python, *_SCHEDULER], variables, log_folder), demand=demand)


def _task(name: str, command: Sequence[str], variables: dict[str, str], log_folder: Path) -> Task:
    log = log_folder / name.replace(" ", "_") / _LOG_NAME
    return Task(name, command, for_child(variables, _DEFAULTS), log)


def _variables(rank: LaunchedRank, cluster: Cluster | None) -> dict[str, str]:
    told = rank.as_environment()
    return told if cluster is None else told | cluster.as_environment("MS_WORKER", rank.rank)


def _report(outcome: Outcome, supervision: Supervision) -> None:
    if outcome.received is not None:
        raise LaunchError(f"ended by {outcome.received.name}, and all ranks with it", 128 + outcome.received)
    if outcome.failed is None:
        return
    task = outcome.failed
    for line in last_lines(task.log, _NUM_LAST_LINES):
        print(f"[{task.name}] {line}", file=sys.stderr)
    if outcome.code > 0:
        raise LaunchError(f"{task.name} ended with exit code {outcome.code} (log: {task.log})", outcome.code)
    if outcome.code == -signal.SIGSTOP:
        seconds = f"{supervision.stopped_seconds:g} seconds"
        raise LaunchError(f"{task.name} was stopped by a signal, and not continued for {seconds} (log: {task.log})")
    known = {int(number): number.name for number in signal.Signals}
    name = known.get(-outcome.code, f"signal {-outcome.code}")
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    raise LaunchError(f"{task.name} was ended by {name}{hint} (log: {task.log})", 128 - outcome.code)


def _find_script(script: str, folders: Sequence[Path]) -> str:
    if Path(script).is_file():
        return script
    for folder in folders:
        if (folder / script).is_file():
            return str((folder / script).absolute())
    searched = "".join(f", nor in {folder}" for folder in folders)
    raise LaunchError(f"{script} is not in the current folder{searched}", 127)
