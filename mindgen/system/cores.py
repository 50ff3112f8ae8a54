"""The processor cores that this process may use, and how they are shared out."""

import os


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def core_shares(num_shares: int) -> list[list[int] | None]:
    """Equal parts of them; None, any of them, where there is less than one for each, or one part alone."""
    cores = usable_cores()
    size = len(cores) // num_shares
    if size == 0 or num_shares == 1:
        return [None] * num_shares
    return [cores[first : first + size] for first in range(0, num_shares * size, size)]


def threads_per_share(num_threads: int | None, num_shares: int) -> int:
    """Of so many threads (None is one for each core), at least one."""
    return max(1, (num_threads or len(usable_cores())) // num_shares)
