"""A client that leaves takes its request along."""

import json
import socket
from urllib.parse import urlsplit

WIDTH, LENGTH = 128, 450  # of which 8 run at a time: seconds of work, so that a busy machine has not done it before
BODY = {"model": "demo", "prompt": "One, two,", "max_tokens": LENGTH, "n": WIDTH, "best_of": WIDTH}
BODY |= {"temperature": 2, "ignore_eos": True}


def is_idle(server) -> bool:
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    return all(server.metric(name) == 0 for name in (*names, "mindgen:requests_open"))


def test_of_a_stream(server):
    server.wait_for(lambda: is_idle(server))
    gone, generated = (
        server.metric(f"{name}_total") for name in ("mindgen:client_disconnects", "vllm:generation_tokens")
    )
    with server.http() as http, http.stream("POST", "/v1/completions", json=BODY | {"stream": True}) as response:
        lines = response.iter_lines()
        next(lines)
        assert server.metric("vllm:num_requests_running") == 8 and server.metric("vllm:kv_cache_usage_perc") > 0
        response.close()
    server.wait_for(lambda: is_idle(server))
    assert server.metric("vllm:generation_tokens_total") - generated < WIDTH * LENGTH / 2
    assert server.metric("mindgen:client_disconnects_total") == gone + 1


def send(server, body: dict, buffer_bytes: int | None = None) -> socket.socket:
    """A request whose answer nobody reads."""
    found = urlsplit(server.address)
    connection = socket.socket()
    if buffer_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    connection.connect((found.hostname, found.port))
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    )
    connection.sendall(head.encode() + b"\r\n" + data)
    return connection


def test_of_a_plain_answer(server):
    server.wait_for(lambda: is_idle(server))
    gone = server.metric("mindgen:client_disconnects_total")
    with send(server, BODY):
        server.wait_for(lambda: server.metric("vllm:num_requests_running") == 8)
    server.wait_for(lambda: is_idle(server))
    assert server.metric("mindgen:client_disconnects_total") == gone + 1
    server.wait_for_log('"status": 499')


def test_of_one_that_waits(server):
    server.wait_for(lambda: is_idle(server))
    with send(server, BODY):
        server.wait_for(lambda: server.metric("vllm:num_requests_running") == 8)
        with send(server, BODY | {"stream": True}):
            server.wait_for(lambda: server.metric("vllm:num_requests_waiting") == 1)
        server.wait_for(lambda: server.metric("vllm:num_requests_waiting") == 0)
        assert server.metric("vllm:num_requests_running") == 8


def test_a_reader_that_stalls_holds_nobody_up(server, client):
    server.wait_for(lambda: is_idle(server))
    with send(server, BODY | {"stream": True, "n": 32, "best_of": 32}):
        server.wait_for(lambda: server.metric("vllm:num_requests_running") == 8)
        assert client.completions.create(model="A1", prompt="One,", max_tokens=2).choices[0].finish_reason == "length"
    server.wait_for(lambda: is_idle(server))


def test_of_one_that_leaves_what_it_has_not_read(server):
    """All has been generated, some megabytes of it, which no buffers hold: the rest waits for the client."""
    server.wait_for(lambda: is_idle(server))
    gone, generated = (
        server.metric(f"{name}_total") for name in ("mindgen:client_disconnects", "vllm:generation_tokens")
    )
    with send(server, BODY | {"stream": True, "n": 8, "best_of": 8, "logprobs": 20}, buffer_bytes=4096):
        server.wait_for(lambda: server.metric("vllm:generation_tokens_total") == generated + 8 * LENGTH)
        server.wait_for(lambda: server.metric("vllm:num_requests_running") == 0)
        assert server.metric("mindgen:requests_open") == 8
    server.wait_for(lambda: is_idle(server))
    server.wait_for(lambda: server.metric("mindgen:client_disconnects_total") == gone + 1)


def test_connections_that_say_nothing(server, client):
    found = urlsplit(server.address)
    opened = [socket.create_connection((found.hostname, found.port)) for _ in range(50)]
    for connection in opened[::2]:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
    assert client.completions.create(model="demo", prompt="One,", max_tokens=1).choices
    for connection in opened:
        connection.close()
    server.wait_for(lambda: is_idle(server))
