"""kill -9 of one replica behind the port: its requests fail as they should, and the others do not notice."""

import os
import signal
import threading
from pathlib import Path

import openai
import pytest
from guarded_server import ADMIN, Guarded
from prometheus_client.parser import text_string_to_metric_families
from server_process import ROOT, serving

PROMPT = "An increasing sequence: six,"
LONG = {"prompt": "An increasing sequence: one,", "max_tokens": 450, "extra_body": {"ignore_eos": True}}
NAMES = ("demo", "A1", "A3")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "admin").write_text(f"{ADMIN}\n")
    flags = ("--admin_key_file", str(folder / "admin"), "--adapter_roots", str(ROOT / "adapters"))
    with serving("--model", "demo", "--dp", "2", *flags) as found:
        yield Guarded(found, ROOT / "adapters", ROOT / "adapters")


def replica_of(server) -> int:
    """The process of replica 1."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    found = [int(pid) for each in children for pid in each.read_text().split()]
    (pid,) = [pid for pid in found if b"mindgen.loop.replica" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def health(server) -> tuple[int, str, list[int]]:
    answer = server.http().get("/health")
    return answer.status_code, answer.json()["status"], [each["replica"] for each in answer.json()["lost"]]


def generated(server) -> dict[str, float]:
    """Tokens, by the replicas' numbers."""
    families = text_string_to_metric_families(server.http().get("/metrics").text)
    (found,) = [each for each in families if each.name == "vllm:generation_tokens"]
    return {sample.labels["engine"]: sample.value for sample in found.samples}


class Asker(threading.Thread):
    """One long request, and what has become of it."""

    def __init__(self, client, model: str, is_streamed: bool) -> None:
        super().__init__()
        self.model, self.is_streamed, self.client = model, is_streamed, client
        self.begun = threading.Event()
        self.text, self.error = "", None
        self.start()

    def run(self) -> None:
        try:
            if not self.is_streamed:
                self.begun.set()
                self.text = self.client.completions.create(model=self.model, **LONG).choices[0].text
                return
            for chunk in self.client.completions.create(model=self.model, stream=True, **LONG):
                self.text += chunk.choices[0].text
                self.begun.set()
        except openai.APIError as error:
            self.error = error


def test_a_killed_replica(guarded):
    server, client = guarded.server, guarded.server.client()
    expected = {name: client.completions.create(model=name, **LONG).choices[0].text for name in NAMES}
    assert health(server) == (200, "ok", []) and generated(server).keys() == {"0", "1"}
    pid = replica_of(server)
    asking = [Asker(client, name, is_streamed) for name in NAMES * 4 for is_streamed in (True, False)]
    for each in asking:
        each.begun.wait(60)
    os.kill(pid, signal.SIGKILL)
    for each in asking:
        each.join(60)
    failed = [each for each in asking if each.error is not None]
    assert 0 < len(failed) < len(asking)
    assert all(each.text == expected[each.model] for each in asking if each.error is None)
    for each in failed:
        assert expected[each.model].startswith(each.text) and f"replica 1 (process {pid})" in str(each.error)
        assert each.error.code == "replica_ended"
        if not each.is_streamed:
            assert each.error.status_code == 503 and each.error.response.headers["Retry-After"] == "1"
    assert {each.is_streamed for each in failed} == {True, False}

    for name in NAMES * 2:
        assert client.completions.create(model=name, **LONG).choices[0].text == expected[name]
    assert server.metric("mindgen:replica_ends_total") == 1
    server.wait_for_log(f"replica 1 (process {pid}) was killed by signal 9")
    server.wait_for(lambda: health(server) == (200, "ok", []), 60)
    assert server.metric("mindgen:replicas") == 2 and server.metric("mindgen:replicas_lost") == 0
    server.wait_for_log("replica 1 serves again")
    before = generated(server)
    asking = [Asker(client, name, True) for name in NAMES * 4]
    for each in asking:
        each.join(60)
        assert (each.error, each.text) == (None, expected[each.model])
    assert all(count > before[number] for number, count in generated(server).items()) and len(before) == 2


def test_while_it_is_away(guarded):
    """It says so; adapters come and go; and the replica that is started has them."""
    server = guarded.server
    server.wait_for(lambda: health(server)[1] == "ok", 60)
    ends = server.metric("mindgen:replica_ends_total")
    os.kill(replica_of(server), signal.SIGKILL)
    server.wait_for(lambda: health(server) == (200, "degraded", [1]))
    assert server.http().get("/ready").status_code == 200
    assert server.metric("mindgen:replicas_lost") == 1 and generated(server).keys() == {"0"}
    assert guarded.load("late", "A1").status_code == 200 and guarded.unload("A2").status_code == 200
    server.wait_for(lambda: health(server)[1] == "ok", 60)
    assert server.metric("mindgen:replica_ends_total") == ends + 1
    before = generated(server)
    asking = [Asker(server.client(), name, True) for name in ("late", "A1") * 4]
    for each in asking:
        each.join(60)
    assert {each.error for each in asking} == {None} and len({each.text for each in asking}) == 1
    assert all(count > before[number] for number, count in generated(server).items())
    with pytest.raises(openai.NotFoundError):
        server.client().completions.create(model="A2", prompt=PROMPT)
