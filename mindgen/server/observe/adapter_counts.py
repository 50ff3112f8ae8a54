"""What each adapter has done, for Prometheus: the busiest by their names, and all others as one."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nlargest

from prometheus_client.core import CounterMetricFamily, Metric

OTHERS = "other"
_BASE = "base"


@dataclass(slots=True)
class Count:
    requests: int = 0
    tokens: int = 0

    def take(self, other: "Count") -> None:
        """All that the other has, which has none then."""
        self.requests += other.requests
        self.tokens += other.tokens
        other.requests = other.tokens = 0


@dataclass(slots=True)
class _Adapter:
    """
    Attributes:
        total: its requests since it came.
        shown: under its own name.
        unshown: since the last look.
    """

    total: int = 0
    shown: Count = field(default_factory=Count)
    unshown: Count = field(default_factory=Count)


class AdapterCounts:
    """A collector of prometheus_client's. At each look those with the most requests have their names, and among equals
    those that came first. What an adapter did while it had no name stays with the others, so no counter ever falls.

    Args:
        model: the label of all.
        most: adapters that have names.
    """

    def __init__(self, model: str, most: int) -> None:
        self._model, self._most = model, most
        self._base, self._others, self._has_others = Count(), Count(), False
        self._adapters: dict[str, _Adapter] = {}
        self._lock = threading.Lock()  # looks come from other threads

    def add(self, adapter_id: str | None, num_tokens: int) -> None:
        """A request; None is the base model's."""
        with self._lock:
            if adapter_id is None:
                count = self._base
            else:
                adapter = self._adapters.setdefault(adapter_id, _Adapter())
                adapter.total += 1
                count = adapter.unshown
            count.requests += 1
            count.tokens += num_tokens

    def forget(self, adapter_id: str) -> None:
        """It is no longer shown; another may have its name."""
        with self._lock:
            self._settle()
            self._adapters.pop(adapter_id, None)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "mindgen:adapter_requests", "Requests, by adapter.", labels=["model_name", "adapter"]
        )
        tokens = CounterMetricFamily(
            "mindgen:adapter_generation_tokens", "Generated, by adapter.", labels=["model_name", "adapter"]
        )
        with self._lock:
            rows = [(name, adapter.shown) for name, adapter in self._settle().items()]
            rows += [(_BASE, self._base)] * (self._base.requests > 0) + [(OTHERS, self._others)] * self._has_others
            for name, count in rows:
                requests.add_metric([self._model, name], count.requests)
                tokens.add_metric([self._model, name], count.tokens)
        yield from (requests, tokens)

    def _settle(self) -> dict[str, _Adapter]:
        """Shares out what has come since the last look; returns those that have names now."""
        named = dict(nlargest(self._most, self._adapters.items(), key=lambda item: item[1].total))
        for name, adapter in self._adapters.items():
            (adapter.shown if name in named else self._others).take(adapter.unshown)
        self._has_others = self._has_others or len(named) < len(self._adapters)
        return named
