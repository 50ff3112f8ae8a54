"""What is counted of adapters: how often they were asked for, brought in, and made way."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(slots=True)
class AdapterCounters:
    """Of one version: what it has answered, and how often it had to be brought in."""

    requests: int = 0
    tokens: int = 0
    loads: int = 0
    evictions: int = 0
    load_seconds: float = 0.0

    def add(self, other: "AdapterCounters") -> None:
        self.requests += other.requests
        self.tokens += other.tokens
        self.loads += other.loads
        self.evictions += other.evictions
        self.load_seconds += other.load_seconds


class AdapterStatus(NamedTuple):
    """An adapter as it stands; hit_rate is the share of its requests that found it in memory."""

    adapter_id: str
    folder: Path
    version: int
    digest: str | None
    is_resident: bool
    requests: int
    tokens: int
    loads: int
    evictions: int
    load_seconds: float

    @property
    def hit_rate(self) -> float | None:
        return _hit_rate(self.loads, self.requests)


class PoolMetrics(NamedTuple):
    """Of all adapters together, since the start; hit_rate is the share of requests that found theirs in memory.

    Attributes:
        slots, slots_in_use: places in the network's memory, and those that hold an adapter.
        host_bytes: of adapters that were read and are kept in host memory.
    """

    slots: int
    slots_in_use: int
    host_bytes: int
    requests: int
    tokens: int
    loads: int
    evictions: int
    load_seconds: float

    @property
    def hit_rate(self) -> float | None:
        return _hit_rate(self.loads, self.requests)


def _hit_rate(loads: int, requests: int) -> float | None:
    return max(0.0, 1 - loads / requests) if requests else None
