"""Replicas: results in the order of the prompts, the same as without; and ranks that a launcher has started."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mindgen import LLM, SamplingParams
from mindgen.commands.launched import own_share
from mindgen.environment import LaunchedRank
from mindgen.errors import ConfigError, UnknownAdapterError, UsageError

ROOT = Path(__file__).parents[2]
ANSWERS = json.loads((ROOT / "tests/data/demo_answers.json").read_text(encoding="utf-8"))[::8]
PROMPTS = [answer["prompt"] for answer in ANSWERS]
ADAPTERS = [answer["adapter_id"] for answer in ANSWERS]
GREEDY = SamplingParams(temperature=0, max_tokens=80)


@pytest.fixture(scope="module")
def llm():
    with closing(LLM("demo", tensor_parallel_size=2, data_parallel_size=2)) as llm:
        yield llm


def test_results_are_in_the_order_of_the_prompts(llm):
    assert len(PROMPTS) % 2 == 1 or len(PROMPTS) > 2
    outputs = llm.generate(PROMPTS, GREEDY, ADAPTERS)
    assert [output.prompt for output in outputs] == PROMPTS
    assert [output.adapter_id for output in outputs] == ADAPTERS
    assert [output.outputs[0].text for output in outputs] == [answer["answer"] for answer in ANSWERS]
    assert llm.generate(PROMPTS[0], GREEDY, ADAPTERS[0])[0].outputs[0].text == ANSWERS[0]["answer"]


def test_chunks_joined_are_the_texts(llm):
    texts = [""] * 3
    for chunk in llm.stream(PROMPTS[:3], GREEDY, ADAPTERS[:3]):
        texts[chunk.index] += chunk.text
    assert texts == [answer["answer"] for answer in ANSWERS[:3]]


def test_streams_that_are_closed_leave_the_replicas(llm):
    stream = llm.stream(PROMPTS[:4], SamplingParams(temperature=0, max_tokens=400, ignore_eos=True))
    stream.advance()
    stream.close()
    assert llm.generate(PROMPTS[:3], GREEDY, ADAPTERS[:3])[2].outputs[0].text == ANSWERS[2]["answer"]


def test_failures_come_back_and_adapters_go_everywhere(llm):
    outputs = llm.generate(["one,", "two,"], GREEDY, [None, "nobody"])
    assert outputs[0].error is None and isinstance(outputs[1].exception, UnknownAdapterError)
    llm.add_adapter("nobody", ROOT / "adapters/A1")
    assert [output.error for output in llm.generate(["one,"] * 2, GREEDY, "nobody")] == [None, None]
    llm.remove_adapter("nobody")
    llm.reset_prefix_cache()
    with pytest.raises(UnknownAdapterError):
        llm.generate(["one,"] * 2, GREEDY, "nobody")


def test_ranks_of_a_launcher_serve_the_first_of_their_replica(tmp_path):
    command = [sys.executable, "-m", "mindgen", "launch", "--ranks", "4", "--data_parallel", "2", "--"]
    command += [sys.executable, "-m", "mindgen", "generate", "--use_parallel", "True", "--prompt", *PROMPTS[:2]]
    command += ["--adapter_id", *(adapter or "base" for adapter in ADAPTERS[:2])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    for rank, answer in ((0, ANSWERS[0]), (2, ANSWERS[1])):
        log = (tmp_path / f"output/log/rank_{rank}/mindgen.log").read_text(encoding="utf-8")
        assert answer["answer"] in log
        assert sum(each["answer"] in log for each in ANSWERS[:2]) == 1
    assert ANSWERS[0]["answer"] in result.stdout.decode()


def test_prompts_must_divide_among_launched_replicas(tmp_path, monkeypatch):
    for name, value in LaunchedRank(0, 1, 0, 1, 2, tmp_path).as_environment().items():
        monkeypatch.setenv(name, value)
    assert own_share(6) == range(3, 6)
    with pytest.raises(UsageError, match="3 prompts do not divide among 2 replicas"):
        own_share(3)


def test_a_launcher_and_the_configuration_must_agree(tmp_path, monkeypatch):
    for name, value in LaunchedRank(0, 4, 0, 0, 1, tmp_path).as_environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="rank 0 of 4 that were launched"):
        LLM("demo", tensor_parallel_size=2)
