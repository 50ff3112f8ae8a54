"""lm-eval's client of completions, unchanged, gives a model the scores that its transformers client gives it."""

import json
import os
import subprocess
import sys

import pytest
from evaluation_tasks import CAPITALS, LETTERS, write_tasks
from real_model import fetch_real_model
from server_process import ROOT, serving

pytestmark = pytest.mark.slow
PAGES = ("slora", "serving", "rlhf")
PASSAGE_LETTERS = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return fetch_real_model(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    passages = [(ROOT / f"docs/{page}.md").read_text()[:PASSAGE_LETTERS] for page in PAGES]
    return folder, write_tasks(folder, passages)


@pytest.fixture(scope="module")
def theirs(model, tasks, tmp_path_factory):
    arguments = f"pretrained={model},dtype=float32"
    return evaluated("hf", arguments, tasks, tmp_path_factory.mktemp("theirs"), "--device", "cpu")


def evaluated(client, arguments, tasks, folder, *flags):
    """What lm-eval says of each task and of each of its documents."""
    tasks_folder, names = tasks
    command = [sys.executable, "-m", "lm_eval", "run", "--model", client, "--model_args", arguments]
    command += ["--tasks", *names, "--include_path", tasks_folder, "--output_path", folder, "--log_samples", *flags]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (results,) = folder.rglob("results_*.json")
    samples = {}
    for name in names:
        (path,) = folder.rglob(f"samples_{name}_*.jsonl")
        lines = map(json.loads, path.read_text().splitlines())
        samples[name] = [each["resps"] for each in sorted(lines, key=lambda line: line["doc_id"])]
    return json.loads(results.read_text())["results"], samples


@pytest.mark.parametrize("tokenized", [True, False], ids=["tokens", "texts"])
def test_scores_are_those_of_transformers(model, tasks, theirs, tmp_path, tokenized):
    with serving("--model", str(model), "--dtype", "float32", "--served_model_name", "smollm2") as server:
        arguments = {
            "model": "smollm2", "base_url": f"{server.address}/v1/completions", "tokenizer": model,
            "tokenized_requests": tokenized, "num_concurrent": 4, "max_retries": 1,
        }  # fmt: skip
        given = ",".join(f"{name}={value}" for name, value in arguments.items())
        ours = evaluated("local-completions", given, tasks, tmp_path, "--batch_size", "4")
    their_results, their_samples = theirs
    our_results, our_samples = ours
    for name, found in our_samples.items():
        assert len(found) == (len(PAGES) if name == "passages" else len(CAPITALS))
        for one, other in zip(found, their_samples[name], strict=True):
            assert_same(name, one, other)
    for name, expected in their_results.items():
        for metric in ("acc,none", "acc_norm,none", "exact_match,none"):
            assert our_results[name].get(metric) == expected.get(metric), (name, metric)
    assert our_results["capital_choice"]["acc,none"] > 2 / len(LETTERS)  # what says nothing of the prompt gives chance


def assert_same(task, ours, theirs):
    """Texts, and whether a continuation is the greedy one, exactly; log-likelihoods within rounding."""
    if task == "capital_text":
        assert ours == theirs
        return
    for (one,), (other,) in zip(ours, theirs, strict=True):
        (value, *is_greedy), (expected, *was_greedy) = (
            each if isinstance(each, list) else [each] for each in (one, other)
        )
        assert float(value) == pytest.approx(float(expected), abs=1e-3, rel=1e-5)
        assert is_greedy == was_greedy
