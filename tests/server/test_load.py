"""Many clients at once: nothing is lost, nothing is mixed, and nothing grows."""

import asyncio
import json
import re
import shutil
import threading
from collections import Counter
from pathlib import Path

import httpx
import openai
import pytest
from guarded_server import ADMIN, Guarded
from server_process import ROOT, Server, serving

PROMPT = "An increasing sequence: six,"
SOURCES = ("A1", "A2", "A3")


@pytest.fixture(params=["1", pytest.param("2", marks=pytest.mark.slow)], ids=["one", "replicas"])
def turning(request, tmp_path):
    """A server whose root has the demo's adapters, and a folder for one that changes."""
    (tmp_path / "admin").write_text(f"{ADMIN}\n")
    for name in SOURCES:
        shutil.copytree(ROOT / "adapters" / name, tmp_path / "root" / name)
    flags = ("--admin_key_file", str(tmp_path / "admin"), "--adapter_roots", str(tmp_path / "root"))
    with serving("--model", "demo", "--dp", request.param, *flags) as found:
        yield Guarded(found, tmp_path / "root", tmp_path)


def test_adapters_turn_under_sixteen_streams(turning):
    """One is loaded anew with other content, one comes and goes: each answer is one version's, and says which."""
    client = turning.server.client(ADMIN)
    asked = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0, "extra_body": {"ignore_eos": True}}
    answers = [client.completions.create(model=name, **asked) for name in SOURCES]
    expected = {answer.adapter_digest: answer.choices[0].text for answer in answers}
    assert len(expected) == 3
    found, problems, is_over = Counter(), [], threading.Event()

    def ask(name: str) -> None:
        while not is_over.is_set():
            try:
                chunks = list(client.completions.create(model=name, stream=True, **asked))
            except openai.NotFoundError:
                if name != "guest":
                    problems.append(f"{name} is not there")
                continue
            except openai.APIError as error:
                problems.append(str(error))
                continue
            digests = {chunk.adapter_digest for chunk in chunks}
            text = "".join(chunk.choices[0].text for chunk in chunks)
            if len(digests) != 1 or expected.get(*digests) != text:
                problems.append((digests, text))
            found[name, *digests] += 1

    def turn(content: str) -> None:
        shutil.copytree(turning.root / content, turning.root / "turn", dirs_exist_ok=True)
        assert turning.load("turn", "turn", load_inplace=True).status_code == 200

    turn("A1")
    asking = [threading.Thread(target=ask, args=("turn" if place % 4 else "guest",)) for place in range(16)]
    for thread in asking:
        thread.start()
    for number in range(7):
        turn(SOURCES[(number + 1) % 3])
        assert turning.load("guest", SOURCES[number % 3]).status_code == 200
        if number % 2:
            assert turning.load("guest", SOURCES[(number + 1) % 3], load_inplace=True).status_code == 200
        assert turning.unload("guest").status_code == 200
    is_over.set()
    for thread in asking:
        thread.join(60)
    assert not problems, problems[:3]
    assert {digest for name, digest in found if name == "turn"} == set(expected) and found.total() > 20
    assert "guest" not in turning.names()


NUM_ADAPTERS, NUM_REQUESTS, NUM_WARM = 200, 10_000, 3000
SEQUENCES, QUEUE = 16, 16


@pytest.fixture
def crowded(tmp_path):
    """With 200 adapters, each of a content of its own."""
    listed = {}
    for number in range(NUM_ADAPTERS):
        source, folder = ROOT / "adapters" / SOURCES[number % 3], tmp_path / f"{number:03}"
        shutil.copytree(source, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["lora_alpha"] *= 1 + number / 1000
        (folder / "adapter_config.json").write_text(json.dumps(config))
        listed[f"adapter-{number:03}"] = folder.name
    (tmp_path / "lora_adapter.json").write_text(json.dumps(listed))
    flags = ("--max_num_seqs", str(SEQUENCES), "--max_queue", str(QUEUE), "--access_log", "False")
    with serving("--model", "demo", "--adapters", str(tmp_path), *flags) as found:
        yield found


def resident_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


class Crowd:
    """Twice as many clients as there is room for; each asks again when it is told to, after the time that it is told.

    Attributes:
        refused: how often somebody was told so.
        digests: that each adapter has answered with.
        most_open: outputs that the server was seen to have at once.
    """

    def __init__(self, server: Server) -> None:
        self.server, self.refused, self.most_open = server, 0, 0
        self.digests: dict[str, set[str]] = {}
        self._left: list[int] = []

    def answer(self, numbers: range) -> None:
        self._left = list(reversed(numbers))
        asyncio.run(self._run())

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.server.address, limits=limits, timeout=120) as http:
            clients = [asyncio.create_task(self._client(http)) for _ in range(2 * (SEQUENCES + QUEUE))]
            looking = asyncio.create_task(self._look(http))
            await asyncio.gather(*clients)
            looking.cancel()

    async def _client(self, http: httpx.AsyncClient) -> None:
        while self._left:
            name = f"adapter-{self._left.pop() % NUM_ADAPTERS:03}"
            body = {"model": name, "prompt": PROMPT, "max_tokens": 4, "temperature": 0}
            while (answer := await http.post("/v1/completions", json=body)).status_code == 429:
                self.refused += 1
                assert answer.json()["error"]["code"] == "queue_full"
                await asyncio.sleep(int(answer.headers["Retry-After"]))
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 4
            self.digests.setdefault(name, set()).add(answer.json()["adapter_digest"])

    async def _look(self, http: httpx.AsyncClient) -> None:
        while True:
            page = (await http.get("/metrics")).text
            (count,) = re.findall(r"^mindgen:requests_open\{.*\} (\S+)$", page, re.MULTILINE)
            self.most_open = max(self.most_open, int(float(count)))
            await asyncio.sleep(0.2)


@pytest.mark.slow
def test_ten_thousand_requests_at_twice_the_capacity(crowded, capsys):
    crowd = Crowd(crowded)
    crowd.answer(range(NUM_WARM))
    before = resident_bytes(crowded)
    crowd.answer(range(NUM_WARM, NUM_REQUESTS))
    after = resident_bytes(crowded)
    finished = crowded.metric("vllm:request_success_total")
    with capsys.disabled():
        print(f"\n{crowd.refused} refusals, {crowd.most_open} at once, {before >> 20} and {after >> 20} MiB")
    assert finished == NUM_REQUESTS and crowd.refused > 100
    assert SEQUENCES < crowd.most_open <= SEQUENCES + QUEUE
    assert crowded.metric("mindgen:requests_refused_total") == crowd.refused
    assert crowded.metric("mindgen:requests_open") == crowded.metric("vllm:num_requests_running") == 0
    assert {len(found) for found in crowd.digests.values()} == {1}
    assert len({digest for found in crowd.digests.values() for digest in found}) == len(crowd.digests) == NUM_ADAPTERS
    assert after - before < 24 << 20
