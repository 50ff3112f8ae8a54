"""`mindgen serve` in a process of its own, on a free port."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai

ROOT = Path(__file__).parents[1]
_SECONDS = 120


class Server:
    """One that listens; `log` are the lines of its standard error so far."""

    def __init__(self, process: subprocess.Popen, address: str, log: list[str]) -> None:
        self.process, self.address, self.log = process, address, log

    def client(self, key: str = "nobody-asks", **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0, **options)

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=60)

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        lines = self.http().get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line))

    def wait_for(self, is_so, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, "it did not come to be so"
            time.sleep(0.02)

    def wait_for_log(self, text: str, count: int = 1) -> list[str]:
        """The lines with this text, once there are so many: it comes by a pipe, after what it tells of."""
        found: list[str] = []

        def are_there() -> bool:
            found[:] = [line for line in self.log if text in line]
            return len(found) >= count

        self.wait_for(are_there)
        return found


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "mindgen", "serve", "--num_threads", "1", *flags]


@contextmanager
def serving(*flags: str, folder: Path = ROOT, prints_more: bool = False) -> Iterator[Server]:
    """Ends it with SIGTERM, and has it end well.

    Args:
        prints_more: others may write to its standard output, too.
    """
    process = subprocess.Popen(
        command("--port", "0", *flags), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    reader.start()
    try:
        (line,) = [process.stdout.readline()]
        found = re.search(r"at (http://\S+)$", line)
        assert found, f"it said {line!r}, and {log}"
        yield Server(process, found[1], log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_SECONDS) == 0, log
        assert prints_more or process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        process.stdout.close()
        process.stderr.close()
