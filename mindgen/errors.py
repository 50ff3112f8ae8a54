"""What mindgen raises for a user's mistake: one clear line each, and the exit code that goes with it. And warnings."""

import sys
from functools import lru_cache


class MindgenError(Exception):
    """Something the user can put right; its message says what was expected, what came and what to do."""

    exit_code = 1


class UsageError(MindgenError):
    """A wrong argument: an unknown flag value, adapter or configuration key."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration that does not follow the schema."""


class UnknownAdapterError(UsageError):
    """A request named an adapter that is not registered."""


class ModelError(MindgenError):
    """A model folder that is missing, incomplete or unsupported."""


class AdapterError(MindgenError):
    """An adapter that cannot be served as it is."""


class CheckpointError(MindgenError):
    """A tensor file that is truncated, malformed or unsafe."""


class RankTableError(MindgenError):
    """A rank table that is malformed, or does not fit the machine or the ranks that are to start."""


class LaunchError(MindgenError):
    """A rank failed, or cannot be started; the exit code is that of the rank.

    Attributes:
        exit_code: 128 and its number for a signal, as in a shell.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BatchError(MindgenError):
    """A batch job that cannot go on: another one has its folder, or what it was begun with has changed."""


class RequestError(MindgenError):
    """A request that cannot be served: empty, too long, or with bad sampling parameters."""


class DataError(MindgenError):
    """A file of rows that is missing, damaged or not as expected, or that cannot be written."""


class WeightUpdateError(MindgenError):
    """New weights that cannot be taken: the old ones are still served."""


class KernelError(MindgenError):
    """The CPU kernel library is missing, stale, or refused a call."""


class WorkerError(MindgenError):
    """A process that works for this one has ended, or failed."""


class ReplicaEndedError(WorkerError):
    """One of several replicas has ended with what it was at; the others serve on, and what has failed may be asked
    again."""


class MessageError(MindgenError):
    """What came over a connection is no message, or none that is expected there."""


class WorkerFinished(SystemExit):
    """This process works for another one of its job, and has served it to its end: there is nothing left to do here.

    As nobody need catch it, a program that makes an LLM ends then, with the code of the job.
    """


class AsleepError(RequestError):
    """The engine has given its memory back, and has to be woken first."""


class QueueFullError(RequestError):
    """As many requests wait as may; to be sent again when some have been answered."""


def as_request_error(error: Exception, doing: str) -> MindgenError:
    """The error itself if a user can put it right, else why the request fails alone; the cause stays with it.

    Args:
        doing: what was being done for the request.
    """
    if isinstance(error, MindgenError):
        return error
    found = RequestError(f"{doing} failed: {type(error).__name__}: {' '.join(str(error).split())}")
    found.__cause__ = error
    return found


@lru_cache(maxsize=1000)
def warn(message: str) -> None:
    """Says on stderr what does not stop anything, but should be known; each message once in a process."""
    print(f"mindgen: warning: {message}", file=sys.stderr)
