"""Whose text is made after a step, as that keeps the next step waiting."""

import time
from collections.abc import Iterable

from mindgen.loop.open_request import OpenRequest

_FEW = 8  # readers, who get every token by itself
# Seconds between the chunks of many: for each of them a hundred times what a chunk takes, of the engine and its reader.
_INTERVAL_OF_EACH, _LONGEST_INTERVAL = 0.0025, 0.1


class TextTurns:
    """Texts, and waking those who read them, take a part of the time that grows with the model's speed and the readers'
    number. So many readers are served together, 32 of them every 80 ms, if steps are quicker than that: tokens that
    come in between come in one chunk. First and last tokens do not wait, nor does a text that may stop.
    """

    def __init__(self) -> None:
        self._readers: dict[OpenRequest, None] = {}  # who have their first tokens, in their order
        self._next_turn = 0.0  # of time.perf_counter

    def after_step(self, changed: Iterable[OpenRequest]) -> list[OpenRequest]:
        """Those whose text is to be made now.

        Args:
            changed: by the step.
        """
        urgent = dict.fromkeys(each for each in changed if each.is_eager or each.request.is_finished)
        for each in urgent:
            if each.is_streamed:
                self._readers[each] = None
                each.is_eager = each.has_stops
        now, count = time.perf_counter(), len(self._readers)
        if count > _FEW and now < self._next_turn:
            return list(urgent)
        self._next_turn = now + min(count * _INTERVAL_OF_EACH, _LONGEST_INTERVAL)
        return list(self._readers | urgent)

    def rest(self) -> list[OpenRequest]:
        """All that may have text which is not made yet."""
        return list(self._readers)

    def forget(self, opened: OpenRequest) -> None:
        self._readers.pop(opened, None)
