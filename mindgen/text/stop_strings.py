"""Ends an answer at the first of several strings, without ever showing part of one."""

from collections.abc import Sequence

from mindgen.errors import RequestError


class StopMatcher:
    """Takes an answer's text chunk by chunk, and gives out what can be no part of a stop string.

    The answer ends where the first stop string is complete; of several that are complete at the same character, the
    longest counts. So the result does not depend on how the text is cut into chunks.

    Attributes:
        stop_reason: the stop string that ended the answer; None while there is none.
    """

    def __init__(self, stop: Sequence[str], include_stop_str_in_output: bool = False) -> None:
        if not all(stop):
            raise RequestError("stop holds an empty string, which would end every answer before it begins")
        self._stop = tuple(stop)
        self._first_characters = {string[0] for string in stop}
        self._longest = max(map(len, stop), default=0)
        self._is_included = include_stop_str_in_output
        self._held = ""
        self.stop_reason: str | None = None

    def append(self, text: str) -> str:
        """What may be shown now; once the answer has ended, nothing more is."""
        if self.stop_reason is not None:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        found = self._find(text)
        if found is not None:
            start, self.stop_reason = found
            self._held = ""
            return text[: start + len(self.stop_reason)] if self._is_included else text[:start]
        shown = self._beginning_of_stop(text)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """What was held back, at the end of an answer that no stop string ended."""
        text, self._held = self._held, ""
        return text

    def _find(self, text: str) -> tuple[int, str] | None:
        """Where the stop string begins that is complete first, and which it is."""
        found = [(start, string) for string in self._stop if (start := text.find(string)) >= 0]
        return min(found, key=lambda match: (match[0] + len(match[1]), match[0]), default=None)

    def _beginning_of_stop(self, text: str) -> int:
        """Where the longest end of the text begins that a stop string may begin with."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] in self._first_characters:
                end = text[start:]
                if any(string.startswith(end) for string in self._stop):
                    return start
        return len(text)
