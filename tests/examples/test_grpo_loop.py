"""The loop runs, gets better, is the same in one process and in two, and stops where weights have not arrived."""

import copy
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grpo.placement import OneProcess
from grpo.policy import LoraSettings
from grpo.settings import LoopSettings
from grpo.tasks import eight_words_reward, json_reward
from grpo.trainer import StaleWeightsError
from grpo_lora import main
from ray_clusters import ray_cluster
from real_model import fetch_gguf

from mindgen import LLM, SamplingParams
from mindgen.adapters.formats.peft import read_adapter
from mindgen.errors import MindgenError

ROOT = Path(__file__).parents[2]
SETTINGS = LoopSettings(
    model="demo", task="eight_words", prompts_per_step=2, group_size=4, max_tokens=12, learning_rate=3e-3
)
FLAGS = [
    "--model", "demo", "--task", "eight_words", "--steps", "3", "--prompts_per_step", "2", "--group_size", "4",
    "--max_tokens", "12", "--learning_rate", "3e-3", "--last_layers", "2",
]  # fmt: skip
WITHOUT_TIMES = ("step", "reward", "share_with_signal", "loss", "divergence", "largest_difference", "version", "digest")


def curve(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "curve.csv").open() as file:
        return [tuple(row[name] for name in WITHOUT_TIMES) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The output of a run in one process."""
    folder = tmp_path_factory.mktemp("one")
    assert main([*FLAGS, "--output", str(folder)]) == 0
    return folder


def test_the_adapter_that_is_written_is_the_one_that_is_served(trained):
    rows = curve(trained)
    assert [row[-2] for row in rows] == ["1", "2", "3"] and len({row[-1] for row in rows}) == 3
    llm = LLM("demo", adapters=trained, dtype="float32")
    params = SamplingParams(temperature=0, max_tokens=8, logprobs=0)
    written, base = llm.generate(["Paris"] * 2, params, ["policy", None])
    assert written.adapter_digest == read_adapter(trained / "policy").digest not in {row[-1] for row in rows}
    assert written.outputs[0].cumulative_logprob != base.outputs[0].cumulative_logprob
    llm.close()
    command = [sys.executable, "-m", "mindgen", "generate", "--model", "demo", "--adapter_path", str(trained)]
    flags = ["--adapter_id", "policy", "--prompt", "Paris", "--max_tokens", "4", "--output", "jsonl"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adapter_id"] == "policy"


def test_two_processes_learn_the_same(trained, tmp_path):
    assert main([*FLAGS, "--two_processes", "--output", str(tmp_path)]) == 0
    assert curve(tmp_path) == curve(trained)
    digests = {read_adapter(folder / "policy").digest for folder in (tmp_path, trained)}
    assert len(digests) == 1


@pytest.mark.slow
def test_actors_of_ray_learn_the_same(trained, tmp_path):
    command = [sys.executable, str(ROOT / "examples/grpo_lora.py"), *FLAGS, "--ray", "--output", str(tmp_path)]
    with ray_cluster(num_nodes=1, cpus_of_each=2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert curve(tmp_path) == curve(trained)


@pytest.fixture(scope="module")
def placement():
    placement = OneProcess(SETTINGS, LoraSettings(last_layers=2))
    yield placement
    placement.close()


def test_weights_that_do_not_arrive_stop_the_run(placement, monkeypatch):
    """A sync that reports success and changes nothing: the first answers after a step give it away."""
    update = placement.llm.update_weights
    first = placement.start()

    def lost(*_, **__):
        return report

    sampled, _ = placement.sample(1, first.digest)
    report = update(placement.trainer.policy.tensors(), target="policy", expect_change=False)
    monkeypatch.setattr(placement.llm, "update_weights", lost)
    _, sync = placement.train(sampled)
    assert sync.digest == first.digest
    before = placement.trainer.policy.tensors()
    stale, _ = placement.sample(2, sync.digest)
    with pytest.raises(StaleWeightsError, match=r"differ from the trainer's by up to .*have its weights arrived\?"):
        placement.train(stale)
    after = placement.trainer.policy.tensors()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_log_probabilities_alone_tell(placement):
    """Answers that claim to be the policy's: a hundredth is more than rounding, NaN is no probability."""
    digest = placement.llm.generate(["One,"], SamplingParams(max_tokens=1), "policy")[0].adapter_digest
    report = placement.llm.update_weights(placement.trainer.policy.tensors(), target="policy", expect_change=False)
    assert report.checksum_after != digest  # the test above has left an older one
    batch, _ = placement.sample(1, report.checksum_after)
    for wrong in (0.01, float("nan")):
        groups = copy.deepcopy(batch.groups)
        for group in groups:
            group.answers[0].logprobs[0] += wrong
        with pytest.raises(StaleWeightsError, match="have its weights arrived"):
            placement.train(replace(batch, groups=groups))
    training, sync = placement.train(batch)
    print(f"largest difference of trainer and engine: {training.difference:.1e}")
    with pytest.raises(MindgenError, match=f"adapter {sync.digest} has answered, and 0123 was sent"):
        placement.sample(2, "0123")


@pytest.mark.parametrize(
    ("answer", "has_ended", "expected"),
    [
        ('{"answer": "Paris"}', True, 1), ('{"answer": "Paris"}', False, 0), ('{"answer": "Paris"} is', True, 0),
        ('"Paris"', True, 0), ('{"answer": "Paris', True, 0), ("[" * 100_000, True, 0),
    ],
)  # fmt: skip
def test_the_rule_of_json(answer, has_ended, expected):
    assert json_reward(answer, has_ended) == expected


def test_the_rule_of_eight_words():
    found = [eight_words_reward(" ".join(["one"] * count), True) for count in (0, 1, 6, 8, 9, 16, 20)]
    assert found == [0, 0.125, 0.75, 1, 0.875, 0, 0]
    assert eight_words_reward("one two three four five six seven eight", False) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompts_per_step", "99"], "prompts_per_step must be at most 8, as many as the task eight_words has"),
        (["--group_size", "1"], "group_size must be at least 2, not 1"),
        (["--steps", "0"], "steps must be at least 1, not 0"),
        (["--rank", "0"], "rank must be at least 1, not 0"),
        (["--clip", "0"], "clip must be between 0 and 1"),
        (["--target_modules", "c_attn"], "demo has no modules c_attn"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, capsys, tmp_path):
    assert main([*FLAGS, "--output", str(tmp_path), *flags]) != 0
    error = capsys.readouterr().err
    assert error.startswith("grpo_lora: error: ") and message in error and error.count("\n") == 1


@pytest.mark.slow
def test_answers_become_json(tmp_path):
    """On smollm2."""
    command = [sys.executable, str(ROOT / "examples/grpo_lora.py"), "--steps", "12", "--output", str(tmp_path)]
    command += ["--model", str(fetch_gguf(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rewards = [float(row[1]) for row in curve(tmp_path)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
