"""What counts as doing nothing: neither work nor waiting in small pieces, nor having been stopped oneself."""

import subprocess
import sys
import time

import pytest

from mindgen.parallel.liveness import Stillness

WAIT = "import time\nwhile True: time.sleep(0.001)"


@pytest.mark.parametrize(("script", "is_still"), [("input()", True), (WAIT, False), ("while True: pass", False)])
def test_who_does_nothing_is_still(script, is_still):
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        stillness = Stillness(process.pid, 0.5, 0.05)
        looks = (time.sleep(0.05) or stillness.look() for _ in range(400 if is_still else 16))
        assert any(looks) == is_still  # a while after its start
        if is_still:
            stillness.forget()
            assert [stillness.look() for _ in range(10)] == [False] * 9 + [True]
        process.kill()


def test_who_is_gone_is_not():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    stillness = Stillness(process.pid, 1, 1)
    assert not any(stillness.look() for _ in range(5))
