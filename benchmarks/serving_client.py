"""Streams completions from a server of OpenAI's API, and notes when what comes comes: a process of its own.

Reads a line of JSON for each run, {"address": [host, port], "requests": [[seconds, body], ...]}, and writes one,
{"streams": [{"sent", "events", "tokens"}, ...], "cpu_seconds"}. It shares the machine's cores with the server, so it
looks at no more of an answer than it has to: general HTTP clients take longer for a chunk than the server does.
"""

import json
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

_TEXT, _NO_TEXT, _DONE = b'"text":"', b'"text":""', b"data: [DONE]"
_USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
_TAIL_BYTES = 2048  # hold the usage
_MOST_BYTES = 1 << 16
_SILENCE = 600.0


@dataclass
class Stream:
    """One answer.

    Attributes:
        sent, events: when the request went out and when chunks with text came, in seconds of the monotonic clock.
        tokens: of the output, as the server counts them.
    """

    sent: float = 0.0
    events: list[float] = field(default_factory=list)
    tokens: int = 0
    rest: bytes = b""  # of a line
    tail: bytes = b""  # of what came before

    def take(self, data: bytes) -> bool:
        """Whether the answer has ended.

        Raises:
            ConnectionError: it broke off, or says nothing of its tokens.
        """
        now = time.monotonic()
        lines, end, self.rest = (self.rest + data).rpartition(b"\n")
        self.events += [now] * (lines.count(_TEXT) - lines.count(_NO_TEXT))
        self.tail = (self.tail + lines + end)[-_TAIL_BYTES:]
        if _DONE not in lines:
            if not data:
                raise ConnectionError(f"the stream broke off: {(self.tail + self.rest)[-500:]!r}")
            return False
        usage = _USAGE.findall(self.tail)
        if not usage:
            raise ConnectionError(f"no usage at the end: {self.tail[-500:]!r}")
        self.tokens = int(usage[-1])
        return True


def run(host: str, port: int, requests: list[tuple[float, dict[str, Any]]]) -> list[Stream]:
    """Streams of all requests, each sent so many seconds from now; raises ConnectionError where one fails."""
    waiting = sorted(((wait, _request(host, body), Stream()) for wait, body in requests), key=lambda each: each[0])
    streams = [stream for _, _, stream in waiting]
    begin = time.monotonic()
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and time.monotonic() - begin >= waiting[0][0]:
                _, request, stream = waiting.pop(0)
                connection = socket.create_connection((host, port))
                selector.register(connection, selectors.EVENT_READ, stream)
                stream.sent = time.monotonic()
                connection.sendall(request)
            pause = begin + waiting[0][0] - time.monotonic() if waiting else _SILENCE
            ready = selector.select(max(0.0, pause))
            if not ready and not waiting:
                raise ConnectionError(f"nothing came for {_SILENCE:g} seconds")
            for key, _ in ready:
                if key.data.take(key.fileobj.recv(_MOST_BYTES)):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
    return streams


def _request(host: str, body: dict[str, Any]) -> bytes:
    content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        before = time.process_time()
        try:
            streams = run(*asked["address"], asked["requests"])
            found = [{"sent": each.sent, "events": each.events, "tokens": each.tokens} for each in streams]
            answer = {"streams": found, "cpu_seconds": time.process_time() - before}
        except OSError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
