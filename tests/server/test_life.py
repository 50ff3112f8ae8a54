"""How the server ends."""

import asyncio
import gzip
import http.server
import json
import signal
import threading

import httpx
import openai
import pytest
from server_process import serving

from mindgen.server.answers import EventStream
from mindgen.server.errors import ApiError
from mindgen.server.protocol.usage import Usage


def test_what_is_under_way_is_answered_before_it_ends():
    with serving("--model", "demo") as server:
        client = server.client()
        asked = {"model": "A1", "prompt": "An increasing sequence: one,", "max_tokens": 450}
        asked |= {"n": 8, "temperature": 1, "seed": 1, "logprobs": 20}  # so it takes a while
        asked["extra_body"] = {"ignore_eos": True}
        expected = client.completions.create(**asked).choices[0].text
        stream = client.completions.create(**asked, stream=True)
        first = next(stream)
        plain = []
        asking = threading.Thread(target=lambda: plain.append(client.completions.create(**asked).choices[0].text))
        asking.start()
        server.wait_for(lambda: server.metric("mindgen:requests_open") == 2 * 8)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: is_closed(server.address))
        choices = [chunk.choices[0] for chunk in (first, *stream)]
        text = "".join(choice.text for choice in choices if choice.index == 0)
        asking.join(20)
        assert text == expected and plain == [expected]
        assert server.process.wait(30) == 0


def is_closed(address):
    try:
        httpx.get(address + "/health")
    except httpx.TransportError:
        return True
    return False


@pytest.fixture
def collector():
    """Of traces: its address, and what has come."""
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(data) if self.headers["Content-Encoding"] == "gzip" else data)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/v1/traces", bodies
        listening.shutdown()


def test_what_takes_too_long_is_given_up(collector):
    """And what was asked for is traced."""
    address, traces = collector
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with serving("--model", "demo", "--request_timeout", "0.01", "--trace_endpoint", address) as server:
        headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        server.client().completions.create(model="demo", prompt="One,", max_tokens=1, extra_headers=headers)
        asked = {"model": "demo", "prompt": "One,", "max_tokens": 450, "extra_body": {"ignore_eos": True}}
        with pytest.raises(openai.InternalServerError) as found:
            server.client().completions.create(**asked)
        assert (found.value.status_code, found.value.code) == (503, "timeout")
        with pytest.raises(openai.APIError, match="request_timeout"):
            list(server.client().completions.create(**asked, stream=True))
        assert server.metric("mindgen:requests_open") == server.metric("vllm:num_requests_running") == 0
    sent_spans = b"".join(traces)
    assert bytes.fromhex(trace_id) in sent_spans
    assert b"gen_ai.usage.output_tokens" in sent_spans
    assert b"/v1/completions" in sent_spans


async def sent(events, send_timeout: float = 1.0, stalls: bool = False) -> tuple[list[bytes], int]:
    """What a client gets of a stream, and how often one was said to have left."""
    bodies, gone = [], []

    async def send(message) -> None:
        if stalls and bodies:
            await asyncio.sleep(60)
        if message.get("body"):
            bodies.append(message["body"])

    async def receive():
        await asyncio.sleep(60)

    await EventStream(events, send_timeout, {}, lambda: gone.append(1))({"type": "http"}, receive, send)
    return bodies, len(gone)


def test_streams_that_end_before_their_time():
    closed = []

    async def events(error: Exception | None):
        try:
            yield Usage.of(1, 1)
            if error is not None:
                raise error
            yield Usage.of(1, 2)
        finally:
            closed.append(error)

    bodies, gone = asyncio.run(sent(events(None)))
    assert len(bodies) == 3 and bodies[-1] == b"data: [DONE]\n\n" and gone == 0
    bodies, gone = asyncio.run(sent(events(ApiError(503, "server_error", "too long", code="timeout"))))
    error = {"message": "too long", "type": "server_error", "param": None, "code": "timeout"}
    assert json.loads(bodies[-1].removeprefix(b"data: ")) == {"error": error} and len(bodies) == 2 and gone == 0
    bodies, gone = asyncio.run(sent(events(None), send_timeout=0.05, stalls=True))
    assert len(bodies) == 1 and gone == 1 and len(closed) == 3
