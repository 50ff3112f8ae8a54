"""Locks of files, which end with the process that has them."""

import fcntl
import time
from typing import IO, Any

_LOOK_SECONDS = 0.1


def lock_within(file: IO[Any], seconds: float, shared: bool = False) -> bool:
    """Waits for the lock of an open file for so long; returns whether it came.

    Closing the file gives it up.

    Args:
        shared: with others who share it.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK_SECONDS)
