"""Whether a process of this machine still does anything."""

import time

# Of a core: the idle threads of MindSpore use a hundred-thousandth, a rank that waits for another two thousandths.
_LEAST_SHARE = 1e-4


class Stillness:
    """For how long a process has used no processor time worth mentioning.

    Looks are counted instead of time, so that it is no stillness of the process when all of them were stopped together.

    Args:
        seconds: after which it is still.
        look_seconds: between looks.
    """

    def __init__(self, process: int, seconds: float, look_seconds: float) -> None:
        self._process = process
        self._least = seconds * _LEAST_SHARE
        self._looks_left = self._num_looks = max(1, round(seconds / look_seconds))
        self._used = 0.0

    def forget(self) -> None:
        """As it need not do anything now, counting begins again."""
        self._looks_left = self._num_looks

    def look(self) -> bool:
        """Whether it is still."""
        try:
            used = time.clock_gettime(~self._process << 3 | 2)  # how Linux numbers the clocks of processes
        except OSError:
            return False  # it is gone, which others notice
        if used - self._used >= self._least:
            self._used, self._looks_left = used, self._num_looks
        else:
            self._looks_left -= 1
        return self._looks_left <= 0
