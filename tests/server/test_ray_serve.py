"""`mindgen serve --runner ray` on a cluster of two nodes: the answers of one server, by replicas on both."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from ray_clusters import ray_cluster
from server_process import ROOT, command, serving
from test_metrics import samples

from mindgen.server.errors import ApiError
from mindgen.server.ray.affinity import Affinity

PROMPT = "An increasing sequence: six,"
LONG = {"model": "A1", "prompt": "One, two,", "max_tokens": 450, "extra_body": {"ignore_eos": True}}
NUM_SEQUENCES = 4


def body(**fields) -> bytes:
    return json.dumps({"prompt": PROMPT, **fields}).encode()


def test_adapters_and_prefixes_have_their_places():
    affinity = Affinity("demo", 4, NUM_SEQUENCES)
    places = {}
    for number in range(40):
        asked = [body(model=f"adapter {number}", prompt=f"{turn}") for turn in range(3)]
        found = {affinity.enter(each) for each in asked}
        assert len(found) == 1
        places[number] = found.pop()
        for _ in asked:
            affinity.leave(places[number])
    assert {*places.values()} == {0, 1, 2, 3}
    assert affinity.enter(body(adapter_id="adapter 3", model="demo")) == places[3]
    affinity.leave(places[3])
    shared = "a prompt of the system " * 20
    (place,) = {affinity.enter(body(model=model, prompt=shared + end)) for model in ("demo", None) for end in "ab"}
    elsewhere = {affinity.enter(body(prompt=shared)) for _ in range(2)}
    assert place not in elsewhere  # which has no room any more


def test_what_has_no_place_of_its_own_goes_where_least_is_done():
    affinity = Affinity("demo", 3, NUM_SEQUENCES)
    for nothing in (b"", b"{", b"[]", b'{"prompt": 5}', b"[" * 100_000, b"\xff", body(prompt=None)):
        assert {affinity.enter(nothing) for _ in range(3)} == {0, 1, 2}
    assert affinity.enter(b"", "2") == 2
    for wrong in ("3", "-1", "x", "9" * 30, "²", ""):
        with pytest.raises(ApiError, match="replica must be below 3"):
            affinity.enter(b"", wrong)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, with room for one replica each."""
    with ray_cluster(num_nodes=2, cpus_of_each=1) as made:
        yield made


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def served(cluster, watched):
    flags = [
        "--model",
        "demo",
        "--runner",
        "ray",
        "--dp",
        "2",
        "--max_num_seqs",
        str(NUM_SEQUENCES),
        "--max_queue",
        "8",
    ]
    flags += ("--adapter_folder", str(watched), "--adapter_scan_seconds", "0.1", "--max_body_bytes", "100000")
    with serving(*flags, prints_more=True) as found:
        yield found


def generated(served) -> list[float]:
    """Tokens, by the replicas' places."""
    pages = [served.http().get("/metrics", params={"replica": place}).text for place in (0, 1)]
    return [float(re.search(r"^vllm:generation_tokens_total\{.*\} (\S+)$", page, re.MULTILINE)[1]) for page in pages]


@pytest.mark.slow
def test_answers_and_streams_are_those_of_one_server(served, client):
    for model in ("demo", "A1", "A2", "A3"):
        asked = {"model": model, "prompt": PROMPT, "max_tokens": 16}
        expected = client.completions.create(**asked)
        found = served.client().completions.create(**asked)
        assert found.choices[0] == expected.choices[0] and found.adapter_digest == expected.adapter_digest
        chunks = list(served.client().completions.create(**asked, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == expected.choices[0].text
        assert len(chunks) > 10 and {chunk.adapter_digest for chunk in chunks} == {expected.adapter_digest}
        chat = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8}
        assert (
            served.client().chat.completions.create(**chat).choices[0]
            == client.chat.completions.create(**chat).choices[0]
        )
    raw = served.client().completions.with_raw_response.create(model="A1", prompt=PROMPT, max_tokens=1)
    assert raw.headers["x-mindgen-adapter-digest"] and raw.headers["x-request-id"]


@pytest.mark.slow
def test_what_each_replica_knows_is_shown_together(served):
    together = samples(served.http().get("/metrics").text)["vllm:generation_tokens_total"]
    assert {each.labels["replica"]: each.value for each in together} == dict(zip("01", generated(served), strict=True))
    live = served.http().get("/playground/live").json()
    assert [each["generated_tokens"] for each in live["replicas"]] == generated(served)
    assert {each["name"] for each in served.http().get("/playground/overview").json()["adapters"]} >= {"A1", "A2", "A3"}
    assert "replica=" not in served.http().get("/metrics", params={"replica": 1}).text


@pytest.mark.slow
def test_errors_are_those_of_one_server(served):
    with pytest.raises(openai.NotFoundError):
        served.client().completions.create(model="nobody", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError):
        served.client().completions.create(model="demo", prompt=PROMPT, temperature=-1)
    large = served.http().post("/v1/completions", json={"prompt": "x" * 200_000})
    assert large.status_code == 413 and large.json()["error"]["type"] == "invalid_request_error"
    assert served.http().get("/metrics", params={"replica": 2}).json()["error"]["param"] == "replica"
    assert served.http().get("/nothing").json()["error"]["code"] == "unknown_url"
    assert served.http().get("/").headers["content-type"].startswith("text/html")


@pytest.mark.slow
def test_an_adapter_stays_with_its_replica_until_that_is_full(served):
    before = generated(served)
    for _ in range(6):
        served.client().completions.create(model="A2", prompt=PROMPT, max_tokens=8)
    after = generated(served)
    assert sorted(new - old for old, new in zip(before, after, strict=True)) == [0, 48]
    with ThreadPoolExecutor(2 * NUM_SEQUENCES) as pool:
        asked = {"model": "A2", "prompt": PROMPT, "max_tokens": 200, "extra_body": {"ignore_eos": True}}
        calls = [pool.submit(served.client().completions.create, **asked) for _ in range(2 * NUM_SEQUENCES)]
        assert len({call.result().choices[0].text for call in calls}) == 1
    assert all(new > old for old, new in zip(after, generated(served), strict=True))


@pytest.mark.slow
def test_who_comes_to_full_replicas_is_told_to_come_again(served):
    """Each has room for 4 that run and 8 that wait."""

    async def ask_all() -> list[httpx.Response]:
        body = {"prompt": PROMPT, "max_tokens": 100, "ignore_eos": True, "temperature": 0}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=served.address, timeout=60, limits=limits) as http:
            return await asyncio.gather(*(http.post("/v1/completions", json=body) for _ in range(60)))

    answers = asyncio.run(ask_all())
    texts = {each.json()["choices"][0]["text"] for each in answers if each.status_code == 200}
    refused = [each for each in answers if each.status_code != 200]
    assert len(texts) == 1 and 24 <= len(answers) - len(refused) < 60
    assert {(each.status_code, each.json()["error"]["code"]) for each in refused} == {(429, "queue_full")}
    assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)


@pytest.mark.slow
def test_a_client_that_leaves_takes_its_request_along(served):
    """And all replicas have the adapters of the folder that they watch."""

    def running() -> float:
        pages = [served.http().get("/metrics", params={"replica": place}).text for place in (0, 1)]
        return sum(float(each) for each in re.findall(r"^mindgen:requests_open\{.*\} (\S+)$", "\n".join(pages), re.M))

    stream = served.client().completions.create(**LONG | {"max_tokens": 480}, stream=True)
    next(stream)
    stream.close()
    served.wait_for(lambda: running() == 0)


@pytest.mark.slow
def test_adapters_come_by_the_watched_folder(served, watched):
    def names(place: int) -> set[str]:
        listed = served.http().get("/v1/models", params={"replica": place}).json()["data"]
        return {each["id"] for each in listed}

    shutil.copytree(ROOT / "adapters/A3", watched / "seen")
    served.wait_for(lambda: "seen" in names(0) & names(1), 30)
    text = served.client().completions.create(model="seen", prompt=PROMPT, max_tokens=8).choices[0].text
    assert "VII" in text
    shutil.rmtree(watched / "seen")
    served.wait_for(lambda: "seen" not in names(0) | names(1), 30)


def replicas(cluster) -> list[int]:
    """Processes of the model's replicas, which those of the cluster's nodes have started."""
    found = []
    for node in cluster.list_all_nodes():
        raylet = node.all_processes["raylet"][0].process.pid
        for tasks in Path(f"/proc/{raylet}/task").glob("*/children"):
            for pid in map(int, tasks.read_text().split()):
                if b"ServeReplica:mindgen:ServedReplica" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    return sorted(found)


@pytest.mark.slow
def test_a_replica_that_is_killed_is_replaced(served, cluster):
    expected = served.client().completions.create(**LONG).choices[0].text
    streams = [threading.Thread(target=lambda: outcomes.append(outcome(served, expected))) for _ in range(6)]
    outcomes: list[str] = []
    before = replicas(cluster)
    assert len(before) == 2
    for each in streams:
        each.start()
    served.wait_for(lambda: sum(generated(served)) > 0)
    os.kill(before[0], signal.SIGKILL)
    for each in streams:
        each.join(60)
    assert {*outcomes} <= {"whole", "replica_ended"} and len(outcomes) == 6
    served.wait_for(lambda: len({*replicas(cluster)} - {before[0]}) == 2, 90)
    served.wait_for(lambda: outcome(served, expected) == "whole", 30)
    assert [outcome(served, expected) for _ in range(4)] == ["whole"] * 4


def outcome(served, expected: str) -> str:
    """What becomes of a stream."""
    text = ""
    try:
        for chunk in served.client().completions.create(**LONG, stream=True):
            text += chunk.choices[0].text
    except openai.APIError as error:
        return error.code or str(error)
    return "whole" if text == expected else "torn"


@pytest.mark.slow
def test_it_is_refused_in_a_line(served, tmp_path):
    (tmp_path / "admin").write_text("the-admins-key\n")
    table = {
        "admin_key_file goes with runner local": ("--admin_key_file", str(tmp_path / "admin")),
        "leave nnodes out": ("--nnodes", "2", "--master_addr", "127.0.0.1", "--dp", "2"),
        "has room for 2 replica(s)": ("--dp", "3"),
        "Ray Serve has a port on this cluster already": (),
    }
    for message, flags in table.items():
        asked = command("--runner", "ray", "--model", "demo", "--port", "0", *flags)
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert httpx.get(served.address + "/health").status_code == 200


@pytest.mark.slow
def test_what_is_under_way_is_answered_before_it_ends(served):
    """The last of these tests, as it ends the server."""
    expected = served.client().completions.create(**LONG).choices[0].text
    stream = served.client().completions.create(**LONG, stream=True)
    text = next(stream).choices[0].text
    served.process.send_signal(signal.SIGTERM)
    text += "".join(chunk.choices[0].text for chunk in stream)
    assert text == expected and served.process.wait(60) == 0
