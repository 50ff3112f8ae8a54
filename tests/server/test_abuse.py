"""Clients that behave badly, or are out to harm: they get an error or nothing, and nobody else notices."""

import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from server_process import serving

GOOD = {"model": "demo", "prompt": "One,", "max_tokens": 2, "temperature": 0}
# Some megabytes of answer, which no buffers between server and client hold.
LARGE = {"model": "demo", "prompt": "One,", "max_tokens": 400, "n": 8, "temperature": 2, "logprobs": 20, "stream": True}
LARGE |= {"ignore_eos": True, "seed": 1}


@pytest.fixture(scope="module")
def impatient():
    """A server that leaves clients who do not read."""
    with serving("--model", "demo", "--max_num_seqs", "16", "--send_timeout", "1") as found:
        yield found


def is_idle(server) -> bool:
    return server.metric("mindgen:requests_open") == server.metric("vllm:kv_cache_usage_perc") == 0


@pytest.fixture(autouse=True)
def nobody_notices(impatient):
    """A good client is answered as always, before, meanwhile and afterwards; and nothing is left of the others."""
    text = answer(impatient)
    yield
    assert answer(impatient) == text
    impatient.wait_for(lambda: is_idle(impatient), 20)
    assert impatient.http().get("/health").json()["status"] == "ok"
    assert not any("Traceback" in line for line in impatient.log)


def answer(server) -> str:
    return server.client().completions.create(**GOOD).choices[0].text


@contextmanager
def connected(server, buffer_bytes: int | None = None):
    found = urlsplit(server.address)
    with socket.socket() as connection:
        if buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.settimeout(60)
        connection.connect((found.hostname, found.port))
        yield connection


def head(length: int, path: str = "/v1/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def send(connection: socket.socket, body: dict) -> None:
    data = json.dumps(body).encode()
    connection.sendall(head(len(data)) + data)


def test_who_does_not_read_is_left(impatient):
    gone = impatient.metric("mindgen:client_disconnects_total")
    with connected(impatient, 4096) as connection:
        send(connection, LARGE)
        impatient.wait_for(lambda: impatient.metric("mindgen:client_disconnects_total") == gone + 1, 60)
        assert answer(impatient)
        impatient.wait_for(lambda: is_idle(impatient))


def test_who_reads_slowly_gets_everything(impatient):
    """In small pieces with pauses, each shorter than what the server waits."""
    received = bytearray()
    with connected(impatient, 4096) as connection:
        send(connection, LARGE | {"max_tokens": 60})
        while piece := connection.recv(16384):
            received += piece
            time.sleep(0.002)
            if received.endswith(b"0\r\n\r\n"):
                break
    events = received.count(b"data: {")
    assert b"data: [DONE]" in received and b'"error"' not in received and events >= 8 * 2
    assert received.count(b'"finish_reason":"length"') == 8


@pytest.mark.parametrize("sent", [1.0, 0.5, 0.0], ids=["whole", "half", "head"])
@pytest.mark.parametrize("end", ["half-close", "reset"])
def test_connections_that_break(impatient, sent, end):
    """After the request, in its body, or before it."""
    data = json.dumps(LARGE).encode()
    opened = []
    for _ in range(5):
        found = urlsplit(impatient.address)
        connection = socket.create_connection((found.hostname, found.port))
        connection.sendall(head(len(data)) + data[: int(len(data) * sent)])
        if end == "half-close":
            connection.shutdown(socket.SHUT_WR)
            opened.append(connection)  # the other half stays, and nobody reads it
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    assert answer(impatient)
    impatient.wait_for(lambda: is_idle(impatient), 30)
    for connection in opened:
        connection.close()


def half_open(server, count: int) -> list[socket.socket]:
    found = urlsplit(server.address)
    opened = [socket.create_connection((found.hostname, found.port)) for _ in range(count)]
    for place, connection in enumerate(opened):
        connection.sendall((b"", b"POST /v1/comp", head(1000), head(1000) + b'{"prompt": ')[place % 4])
    return opened


def test_hundreds_of_connections_that_say_half(impatient):
    opened = half_open(impatient, 400)
    with ThreadPoolExecutor(8) as pool:
        assert len({*pool.map(lambda _: answer(impatient), range(16))}) == 1
    for connection in opened:
        connection.close()


MEGABYTE = 1 << 20
HUGE = [
    ("/v1/completions", {"prompt": "one, " * (MEGABYTE // 5)}, 400),
    ("/v1/completions", {"prompt": "x" * MEGABYTE}, 400),
    ("/v1/completions", {"prompt": "\u4e00" * (MEGABYTE // 3)}, 400),
    ("/v1/completions", {"prompt": [5] * (MEGABYTE // 3)}, 400),
    ("/v1/completions", {"prompt": [[5, 6]] * 4096}, 400),
    ("/v1/completions", {"prompt": "One,", "stop": ["x" * MEGABYTE], "max_tokens": 1}, 200),
    ("/v1/completions", {"prompt": "One,", "model": "m" * MEGABYTE}, 404),
    ("/v1/completions", {"prompt": "One,", "guided_regex": "a" * MEGABYTE}, 400),
    ("/v1/completions", {"prompt": "One,", "guided_json": "[" * MEGABYTE}, 400),
    ("/v1/completions", {"prompt": "One,", "logit_bias": {str(place): 1 for place in range(10**5)}}, 400),
    ("/v1/completions", {"prompt": "One,", "user": "u" * MEGABYTE, "max_tokens": 1}, 200),
    ("/v1/completions", {"prompt": "One,", "x" * MEGABYTE: 1}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "one, " * (MEGABYTE // 5)}]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}] * 20_000}, 400),
    ("/v1/score", {"text_1": "one, " * (MEGABYTE // 5), "text_2": "two,"}, 400),
    ("/v1/score", {"text_1": "one,", "text_2": ["two,"] * 4096}, 400),
    ("/tokenize", {"prompt": "one, " * (MEGABYTE // 5)}, 200),
    ("/detokenize", {"tokens": [5] * (MEGABYTE // 3)}, 200),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status"), HUGE, ids=[f"{path} {[*body][-1][:12]}" for path, body, _ in HUGE])
def test_a_megabyte(impatient, path, body, status):
    """Of whatever field: an answer in time, and a short one for what is refused."""
    with ThreadPoolExecutor(1) as pool, impatient.http() as http:
        waiting = pool.submit(http.post, path, json=body)
        assert answer(impatient)  # meanwhile
        found = waiting.result(60)
    assert found.status_code == status, found.text[:500]
    if status != 200:
        assert len(found.content) < 2000 and found.json()["error"]["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b'{"prompt": "\xc3"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\xf8\x88\x80\x80\x80"}',
        b"\x00" * 100,
    ],
    ids=["a byte", "cut", "surrogate", "five bytes", "zeros"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/score", "/tokenize"])
def test_bodies_that_are_no_text(impatient, path, data):
    found = impatient.http().post(path, content=data, headers={"Content-Type": "application/json"})
    assert found.status_code == 400 and found.json()["error"]["type"] == "invalid_request_error"


RAW = [
    (b"GET /v1/models/\xff\xfe HTTP/1.1", b"", (400, 404)),
    (b"GET /v1/models/%ff%fe HTTP/1.1", b"", (404,)),
    (b"GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1", b"", (404,)),
    (b"GET /v1/models/../../etc/passwd HTTP/1.1", b"", (404,)),
    (b"GET /playground/..%2f..%2fserver%2fapp.py HTTP/1.1", b"", (404,)),
    (b"GET /playground/../../../app.py HTTP/1.1", b"", (404,)),
    (b"GET /playground/%2e%2e/main.js HTTP/1.1", b"", (404,)),
    (b"GET //etc/passwd HTTP/1.1", b"", (404,)),
    (b"GET /health?\xff=%ff%00 HTTP/1.1", b"", (200, 400)),
    (b"GET /health HTTP/1.1", b"Authorization: Bearer \xff\xfe\r\n", (200, 400)),
    (b"GET /health HTTP/1.1", b"X-Request-Id: \xff\x01\r\n", (200, 400)),
    (b"GET /health HTTP/1.1", b"X-Long: " + b"x" * 200_000 + b"\r\n", (400, 431)),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"", (400,)),  # TLS
    (b"PRI * HTTP/2.0", b"", (400, 404, 405, 505)),
]  # fmt: skip


@pytest.mark.parametrize(("line", "headers", "statuses"), RAW, ids=[repr(line[:40]) for line, *_ in RAW])
def test_what_no_client_library_sends(impatient, line, headers, statuses):
    with connected(impatient) as connection:
        try:
            connection.sendall(line + b"\r\nHost: x\r\n" + headers + b"Connection: close\r\n\r\n")
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:  # it has heard enough
            return
    status, _, content = received.partition(b"\r\n\r\n")
    assert int(status.split()[1]) in statuses, received[:300]
    assert b"root:" not in content and b"FastAPI(" not in content
