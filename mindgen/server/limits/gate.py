"""Lets requests in while there is room: in the queue, for a key, for an adapter."""

import math
import time
from collections import deque
from collections.abc import Callable

from mindgen.server.errors import bad_request, too_many
from mindgen.server.limits.keys import Caller, Limits

_REMEMBERED = 64  # requests whose durations say how long one takes
_MOST_RETRY_SECONDS = 60


class Quota:
    """What one key, or one adapter, uses of its limits.

    Args:
        what: its name in errors.
    """

    def __init__(self, what: str, limits: Limits, now: float) -> None:
        self._what, self._limits = what, limits
        self._num_open = 0
        self._tokens = self._most = max(1.0, limits.requests_per_minute or 0.0)  # as many at once after a quiet minute
        self._refilled = now

    def check(self, now: float) -> None:
        """Raises ApiError where one more is too many."""
        limits = self._limits
        if limits.concurrency is not None and self._num_open >= limits.concurrency:
            raise too_many(f"{self._what} has {self._num_open} requests at once, its limit", "concurrency_limit", 1)
        self.check_rate(now)

    def check_rate(self, now: float) -> None:
        """As `check`, of one that is over at once."""
        limits = self._limits
        if limits.requests_per_minute is None:
            return
        rate = limits.requests_per_minute / 60
        self._tokens = min(self._most, self._tokens + (now - self._refilled) * rate)
        self._refilled = now
        if self._tokens < 1:
            wait = math.ceil((1 - self._tokens) / rate)
            raise too_many(
                f"{self._what} is limited to {limits.requests_per_minute:g} requests per minute",
                "rate_limit_exceeded",
                wait,
            )

    def enter(self) -> None:
        self._num_open += 1
        self.count()

    def count(self) -> None:
        """One that is over at once."""
        self._tokens -= self._limits.requests_per_minute is not None

    def leave(self) -> None:
        self._num_open -= 1

    def is_idle(self, now: float) -> bool:
        """Whether it is as if nobody had ever asked."""
        rate = (self._limits.requests_per_minute or 0.0) / 60
        return self._num_open == 0 and self._tokens + (now - self._refilled) * rate >= self._most


class Lease:
    """Room that a request has, until it gives it back."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Gate:
    """Belongs to one event loop.

    Args:
        capacity: outputs that are computed or wait at most, in all.
        adapter_limits: of each adapter.
    """

    def __init__(self, capacity: int, adapter_limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._adapter_limits = adapter_limits
        self._clock = clock
        self._quotas: dict[tuple[str, str | bytes], Quota] = {}
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)
        self.num_open = 0
        self.num_refused = 0

    @property
    def is_full(self) -> bool:
        return self.num_open >= self._capacity

    def enter(self, caller: Caller, adapter_id: str | None, num_outputs: int) -> Lease:
        """
        Raises:
            ApiError: there is no room now (429), or never for so many at once (400).
        """
        if num_outputs > self._capacity:
            raise bad_request(
                f"the request has {num_outputs} outputs, and the server takes {self._capacity} at once: send fewer "
                "prompts, or a lower n"
            )
        now = self._clock()
        quotas = self._quotas_of(caller, adapter_id, now)
        try:
            for quota in quotas:
                quota.check(now)
            if self.num_open + num_outputs > self._capacity:
                raise too_many("the queue is full: try again later", "queue_full", self._usual_seconds())
        except Exception:
            self.num_refused += 1
            raise
        self.num_open += num_outputs
        for quota in quotas:
            quota.enter()
        return Lease(lambda: self._leave(quotas, num_outputs, now))

    def count(self, caller: Caller) -> None:
        """Lets a request in that is over at once, and needs no place.

        Raises:
            ApiError: the caller's key has no more of them this minute.
        """
        now = self._clock()
        quotas = self._quotas_of(caller, None, now)
        try:
            for quota in quotas:
                quota.check_rate(now)
        except Exception:
            self.num_refused += 1
            raise
        for quota in quotas:
            quota.count()

    def _leave(self, quotas: list[Quota], num_outputs: int, entered: float) -> None:
        now = self._clock()
        self.num_open -= num_outputs
        self._durations.append(now - entered)
        for quota in quotas:
            quota.leave()
        self._quotas = {key: quota for key, quota in self._quotas.items() if not quota.is_idle(now)}

    def _quotas_of(self, caller: Caller, adapter_id: str | None, now: float) -> list[Quota]:
        wanted: list[tuple[tuple[str, str | bytes], str, Limits]] = [
            (("key", caller.digest), f"the key {caller.name!r}", caller.limits)
        ]
        if adapter_id is not None:
            wanted.append((("adapter", adapter_id), f"the adapter {adapter_id!r}", self._adapter_limits))
        return [
            self._quotas.setdefault(key, Quota(what, limits, now)) for key, what, limits in wanted if limits != Limits()
        ]

    def _usual_seconds(self) -> int:
        if not self._durations:
            return 1
        return min(_MOST_RETRY_SECONDS, math.ceil(sum(self._durations) / len(self._durations)))
