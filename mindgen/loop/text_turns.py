"""Whose text is made after a step, as that keeps the next step waiting."""

import time
from collections.abc import Iterable

from mindgen.loop.open_request import OpenRequest

_FEW = 8  # readers, who get every token by itself
_INTERVAL = 0.05  # seconds between the chunks of one of many


class TextTurns:
    """Texts, and waking those who read them, take a part of the time that grows with the model's speed and the readers'
    number. So of many readers each is served twenty times a second, if steps are quicker than that: tokens that come in
    between come together. First and last tokens do not wait, nor does a text that may stop.
    """

    def __init__(self) -> None:
        self._waiting: dict[OpenRequest, None] = {}  # in their order
        self._due: dict[OpenRequest, float] = {}  # when the next chunk is, in seconds

    def after_step(self, changed: Iterable[OpenRequest]) -> list[OpenRequest]:
        """Those whose text is to be made now.

        Args:
            changed: by the step.
        """
        now = time.perf_counter()
        self._waiting.update(dict.fromkeys(changed))
        if len(self._waiting) > _FEW:
            due = self._due
            return self._serve(
                [each for each in self._waiting if due.get(each, now) <= now or each.request.is_finished], now
            )
        return self._serve(list(self._waiting), now)

    def rest(self) -> list[OpenRequest]:
        """All others whose text is not made yet."""
        return self._serve(list(self._waiting), time.perf_counter())

    def forget(self, opened: OpenRequest) -> None:
        self._waiting.pop(opened, None)
        self._due.pop(opened, None)

    def _serve(self, ready: list[OpenRequest], now: float) -> list[OpenRequest]:
        for each in ready:
            del self._waiting[each]
            if not each.has_stops:
                self._due[each] = now + _INTERVAL
        return ready
