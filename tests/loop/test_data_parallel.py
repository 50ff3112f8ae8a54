"""Replicas: results in the order of the prompts, the same as without; and ranks that a launcher has started."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mindgen import LLM, SamplingParams
from mindgen.cli.launched import Part
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError, UnknownAdapterError
from mindgen.settings import Settings
from mindgen.system.environment import LaunchedRank

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


def test_a_larger_adapter_that_comes_late_is_served_everywhere(llm, tmp_path):
    """The demo's own with ranks of zeros, which change nothing."""
    llm.generate(PROMPTS[:2], GREEDY, "A1")
    config = json.loads((ROOT / "adapters/A1/adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 20, "lora_alpha": 40}))
    tensors = load_file(ROOT / "adapters/A1/adapter_model.safetensors")
    for name, tensor in tensors.items():
        padding = (0, 0, 0, 12) if "lora_A" in name else (0, 12)
        tensors[name] = torch.nn.functional.pad(tensor, padding).contiguous()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    expected = llm.generate(PROMPTS[:4], GREEDY, ["A1", "A1", "A2", "A3"])
    llm.add_adapter("padded", tmp_path)
    found = llm.generate(PROMPTS[:4], GREEDY, ["padded", "A1", "A2", "padded"])
    expected[3] = llm.generate(PROMPTS[3], GREEDY, "A1")[0]
    assert [each.outputs[0].text for each in found] == [each.outputs[0].text for each in expected]
    llm.remove_adapter("padded")


def test_the_first_of_all_launched_ranks_prints_what_all_replicas_say(llm, tmp_path):
    expected = llm.generate(PROMPTS[:2], GREEDY, ADAPTERS[:2])
    command = [sys.executable, "-m", "mindgen", "launch", "--ranks", "4", "--data_parallel", "2", "--"]
    command += [sys.executable, "-m", "mindgen", "generate", "--use_parallel", "True", "--prompt", *PROMPTS[:2]]
    command += ["--adapter_id", *(adapter or "base" for adapter in ADAPTERS[:2]), "--output", "jsonl"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    shown = [line.removeprefix("[rank 0] ") for line in result.stdout.decode().splitlines()]
    records = [json.loads(line) for line in shown if line.startswith("{")]
    assert [(each["index"], each["prompt"], each["adapter_id"], each["text"]) for each in records] == [
        (index, answer["prompt"], answer["adapter_id"], answer["answer"]) for index, answer in enumerate(ANSWERS[:2])
    ]
    assert [each["adapter_digest"] for each in records] == [output.adapter_digest for output in expected]
    assert sum("2 prompt(s)" in line for line in shown) == 1


def test_a_script_has_the_replicas_that_a_launcher_has_started(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from mindgen import LLM, SamplingParams\n"
        "llm = LLM('demo', data_parallel_size=2)\n"
        f"outputs = llm.generate({PROMPTS!r}, SamplingParams(temperature=0, max_tokens=80), {ADAPTERS!r})\n"
        "print([output.outputs[0].text for output in outputs])\n"
    )
    command = [sys.executable, "-m", "mindgen", "launch", "--ranks", "2", "--data_parallel", "2", "--", sys.executable]
    done = subprocess.run([*command, script], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"[rank 0] {[answer['answer'] for answer in ANSWERS]}\n"


@pytest.mark.parametrize(("num_prompts", "num_busy"), [(1, 1), (3, 3), (4, 4), (9, 4)])
def test_launched_replicas_without_a_prompt_do_nothing(num_prompts, num_busy, tmp_path):
    settings, parts = Settings(), launched_parts(tmp_path, range(4), 4)
    busy = {replica: part.busy(settings, num_prompts) for replica, part in parts.items()}
    assert [replica for replica, each in busy.items() if each is not None] == list(range(num_busy))
    assert {each.engine.data_parallel_size for each in busy.values() if each is not None} == {num_busy}
    assert all(part.share(num_prompts) == range(num_prompts) for part in parts.values())


def test_each_machine_has_its_share_of_the_prompts(tmp_path):
    """Of six replicas this machine has 2 to 4: two prompts for each of the first four, one for the others."""
    parts = launched_parts(tmp_path, range(2, 5), 6)
    assert {part.share(10) for part in parts.values()} == {range(4, 9)}
    assert {part.limits(EngineConfig()).data_parallel_size for part in parts.values()} == {3}
    assert [replica for replica, part in parts.items() if part.busy(Settings(), 3) is not None] == [2]
    assert all(part.busy(Settings(), 2) is None for part in parts.values())


def launched_parts(folder: Path, here: range, num_replicas: int) -> dict[int, Part]:
    for replica in here:
        (folder / str(replica)).mkdir()
    return {replica: Part(LaunchedRank(0, 1, 0, replica, num_replicas, folder / str(replica))) for replica in here}


def test_a_launcher_and_the_configuration_must_agree(tmp_path, monkeypatch):
    for name, value in LaunchedRank(0, 4, 0, 0, 1, tmp_path).as_environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ConfigError,
        match=r"rank 0 of 4 that were launched, and .* 2 x pipeline_parallel_size 1 needs 2",
    ):
        LLM("demo", tensor_parallel_size=2)
