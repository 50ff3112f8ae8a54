"""Keys, rates, concurrency, the queue, bodies, time."""

import json

import openai
import pytest
from guarded_server import ADMIN, ALICE, BOB, CAROL

from mindgen.errors import ConfigError
from mindgen.server.errors import ApiError
from mindgen.server.limits.gate import Gate
from mindgen.server.limits.keys import Caller, KeyRing, Limits

LONG = {"model": "demo", "prompt": "One, two,", "max_tokens": 450, "logprobs": 20}  # so it takes a while
LONG |= {"extra_body": {"ignore_eos": True}}
SHORT = {"model": "demo", "prompt": "One,", "max_tokens": 1}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(gate: Gate, *asked) -> tuple[int, str | None, str | None]:
    with pytest.raises(ApiError) as found:
        gate.enter(*asked)
    return found.value.status, found.value.code, found.value.headers.get("Retry-After")


def test_the_queue():
    gate, anyone = Gate(3, Limits()), Caller("anyone")
    leases = [gate.enter(anyone, None, 2), gate.enter(anyone, "A", 1)]
    assert refused(gate, anyone, None, 1) == (429, "queue_full", "1") and gate.is_full
    assert refused(gate, anyone, None, 4)[0] == 400
    leases[0].release()
    leases[0].release()
    assert gate.num_open == 1 and gate.num_refused == 1
    gate.enter(anyone, None, 2)


def test_rates_and_concurrency():
    clock = Clock()
    gate = Gate(100, Limits(concurrency=2), clock)
    alice = Caller("alice", Limits(requests_per_minute=2))
    for _ in range(2):
        gate.enter(alice, None, 1).release()
    assert refused(gate, alice, None, 1) == (429, "rate_limit_exceeded", "30")
    clock.now = 29.9
    assert refused(gate, alice, None, 1)[1] == "rate_limit_exceeded"
    clock.now = 30.1
    gate.enter(alice, None, 1)
    anyone = Caller("anyone")
    leases = [gate.enter(anyone, "A", 1) for _ in range(2)]
    assert refused(gate, anyone, "A", 1)[1] == "concurrency_limit"
    gate.enter(anyone, "B", 1)
    leases[0].release()
    gate.enter(anyone, "A", 1)


def test_keys_of_one_name_have_limits_of_their_own(tmp_path):
    path = tmp_path / "keys"
    path.write_text("first-key name=team requests_per_minute=1\nsecond-key name=team requests_per_minute=2\n")
    keys, gate = KeyRing.read(str(path), None), Gate(100, Limits(), Clock())
    first, second = (keys.find(f"Bearer {key}-key") for key in ("first", "second"))
    gate.enter(first, None, 1).release()
    assert refused(gate, first, None, 1)[1] == "rate_limit_exceeded"
    for _ in range(2):
        gate.enter(second, None, 1).release()
    assert refused(gate, second, None, 1)[1] == "rate_limit_exceeded"


def test_requests_without_a_place_count_in_the_minute():
    gate, one = Gate(1, Limits(), Clock()), Caller("one", Limits(requests_per_minute=2, concurrency=1))
    lease = gate.enter(one, None, 1)
    gate.count(one)
    lease.release()
    with pytest.raises(ApiError) as found:
        gate.count(one)
    assert found.value.code == "rate_limit_exceeded" and gate.num_refused == 1 and gate.num_open == 0


def test_thousands_of_adapters_leave_nothing_behind():
    gate = Gate(100, Limits(concurrency=2, requests_per_minute=60), clock := Clock())
    for number in range(2000):
        clock.now += 1
        gate.enter(Caller("anyone"), f"adapter {number}", 1).release()
    assert len(gate._quotas) < 5


def test_files_of_keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text("first-key\n\n# a word\nsecond-key name=two concurrency=3 requests_per_minute=1.5\n")
    keys = KeyRing.read(str(path), None)
    assert keys.find("Bearer second-key") == Caller("two", Limits(1.5, 3))
    assert keys.find("bearer first-key").name == "keys-1"
    for header in (None, "Bearer", "Bearer third-key", "Basic first-key", "first-key"):
        with pytest.raises(ApiError) as found:
            keys.find(header)
        assert (found.value.status, found.value.code) == (401, "invalid_api_key")
    assert KeyRing.read(None, None).find(None) == Caller("anonymous")
    for text in ("short", "first-key speed=1", "first-key name", "first-key concurrency=0", "first-key concurrency=x"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="line 1"):
            KeyRing.read(str(path), None)


def test_a_key_stands_once(tmp_path):
    paths = [tmp_path / "keys", tmp_path / "admin"]
    for path in paths:
        path.write_text("other-key\nfirst-key name=one\n\nfirst-key name=two\n".replace("other", path.name))
        with pytest.raises(ConfigError, match=r"line 4: the same key as in .*, line 2"):
            KeyRing.read(str(path), None)
    for path in paths:
        path.write_text(f"{path.name}-key-1\nfirst-key\n")
    with pytest.raises(ConfigError, match=r"admin, line 2: the same key as in .*keys, line 2"):
        KeyRing.read(*map(str, paths))


def test_tokens_count_in_a_keys_minute(guarded):
    """Of which hers has two requests."""
    with guarded.server.http(CAROL) as http:
        asked = [("/tokenize", {"prompt": "One"}), ("/detokenize", {"tokens": [5]})]
        assert [http.post(path, json=body).status_code for path, body in asked] == [200, 200]
        refused = [http.post(path, json=body) for path, body in asked]
    assert [each.json()["error"]["code"] for each in refused] == ["rate_limit_exceeded"] * 2


def test_keys(guarded):
    with pytest.raises(openai.AuthenticationError) as found:
        guarded.server.client("wrong-key").models.list()
    assert found.value.code == "invalid_api_key"
    for path in ("/tokenize", "/v1/completions", "/v1/chat/completions", "/v1/load_lora_adapter"):
        assert guarded.server.http().post(path, json={}).status_code in (400, 401)
    assert guarded.server.http().post("/tokenize", json={"prompt": "One"}).status_code == 401
    for path in ("/health", "/ready", "/version", "/metrics"):
        assert guarded.server.http().get(path).status_code == 200
    assert "wrong-key" not in "".join(guarded.server.log)


def test_a_keys_limits(guarded):
    alice, bob = guarded.server.client(ALICE), guarded.server.client(BOB)
    for _ in range(2):
        alice.completions.create(**SHORT)
    with pytest.raises(openai.RateLimitError) as found:
        alice.completions.create(**SHORT)
    assert found.value.code == "rate_limit_exceeded" and int(found.value.response.headers["retry-after"]) > 1
    with bob.completions.create(**LONG, stream=True) as stream:
        next(stream)
        with pytest.raises(openai.RateLimitError, match="the key 'bob' has 1 requests at once"):
            bob.completions.create(**SHORT)
    guarded.server.wait_for(lambda: guarded.server.metric("mindgen:requests_open") == 0)
    assert bob.completions.create(**SHORT).choices


def test_a_full_queue(guarded):
    client = guarded.server.client(ADMIN)
    streams = [client.completions.create(**LONG, stream=True) for _ in range(2)]
    for stream in streams:
        next(stream)
    with pytest.raises(openai.RateLimitError) as found:
        client.completions.create(**SHORT, n=2, temperature=1)
    assert found.value.code == "queue_full" and int(found.value.response.headers["retry-after"]) >= 1
    assert guarded.server.metric("mindgen:requests_refused_total") >= 1
    for stream in streams:
        stream.close()
    guarded.server.wait_for(lambda: guarded.server.metric("mindgen:requests_open") == 0)
    with pytest.raises(openai.BadRequestError, match="takes 3 at once"):
        client.completions.create(**SHORT, n=4, temperature=1)


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies(guarded, chunked):
    data = json.dumps({"model": "demo", "prompt": "x" * 200_000}).encode()
    content = iter([data[:50_000], data[50_000:]]) if chunked else data
    with guarded.server.http(ADMIN) as http:
        answer = http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["type"] == "invalid_request_error"


def test_the_log_has_prompts_when_asked_for_and_no_keys(guarded, server):
    guarded.server.client(ADMIN).completions.create(
        **(SHORT | {"prompt": "Unusual prompt"}), extra_headers={"X-Request-Id": "one"}
    )
    (line,) = map(json.loads, guarded.server.wait_for_log('"request_id": "one"'))
    assert line["prompts"] == ["Unusual prompt"] and len(line["answers"]) == 1
    assert (line["status"], line["completion_tokens"], line["path"]) == (200, 1, "/v1/completions")
    assert not any(key in each for key in (ADMIN, ALICE, BOB) for each in guarded.server.log)
    server.client().completions.create(**(SHORT | {"prompt": "Unusual prompt"}))
    server.wait_for_log('"completion_tokens": 1')
    assert not any("Unusual" in line for line in server.log)
