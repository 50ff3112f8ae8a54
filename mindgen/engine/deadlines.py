"""Requests that have to end in time, whatever the engine is at."""

import time

from mindgen.engine.sequence import Request


class Deadlines:
    """Forgets requests that have ended when it is asked for the next ones."""

    def __init__(self) -> None:
        self._requests: set[Request] = set()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        """One without a deadline is none of these."""
        if request.deadline is not None:
            self._requests.add(request)

    def expired(self) -> list[Request]:
        if not self._requests:
            return []
        now = time.perf_counter()
        return [each for each in self._open() if each.deadline is not None and each.deadline <= now]

    def seconds_left(self) -> float | None:
        """Until the next one; None if there is none."""
        deadlines = [each.deadline for each in self._open() if each.deadline is not None]
        return max(0.0, min(deadlines) - time.perf_counter()) if deadlines else None

    def _open(self) -> set[Request]:
        self._requests = {request for request in self._requests if not request.is_finished}
        return self._requests
