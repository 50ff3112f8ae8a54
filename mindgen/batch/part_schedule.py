"""Which worker has which parts: each a few at a time, in order, and those of a worker that is lost go to others."""

from collections import deque
from collections.abc import Hashable, Iterable


class PartSchedule:
    """Knows nothing of machines; its memory grows with the parts that are left.

    Args:
        parts: that are to be answered.
        most_per_worker: that a worker has at once, so that it has the next one when one ends.
    """

    def __init__(self, parts: Iterable[int], most_per_worker: int = 2) -> None:
        self._pending = deque(sorted(parts))
        self._held: dict[Hashable, set[int]] = {}
        self._num_held = 0
        self._most = most_per_worker

    @property
    def is_finished(self) -> bool:
        return not self._pending and not self._num_held

    @property
    def num_pending(self) -> int:
        """Parts that no worker has."""
        return len(self._pending)

    def take(self, worker: Hashable) -> int | None:
        """The next part for a worker; None where it has enough, or there is none.

        The last parts go one to each, so that no worker has two while others have none.
        """
        held = self._held.setdefault(worker, set())
        most = self._most if len(self._pending) > len(self._held) else 1
        if len(held) >= most or not self._pending:
            return None
        part = self._pending.popleft()
        held.add(part)
        self._num_held += 1
        return part

    def note_answered(self, worker: Hashable, part: int) -> None:
        self._held[worker].remove(part)
        self._num_held -= 1

    def note_lost(self, worker: Hashable) -> list[int]:
        """The worker is gone; its parts come first now, and are returned."""
        lost = sorted(self._held.pop(worker, ()))
        self._num_held -= len(lost)
        self._pending.extendleft(reversed(lost))
        return lost
