"""One model on two machines, loopback addresses here: the answers of one rank, and the faults that may come."""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from node_commands import MASTER, MINDGEN, SECONDS, NodeCommand, free_port, node_flags
from tiny_adapters import CONFIGS, make_adapter
from tiny_models import make_model
from tiny_tokenizers import make_tokenizer

from mindgen import LLM, SamplingParams
from mindgen.store.embedded import demo_folder

ROOT = Path(__file__).parents[2]
ANSWERS = json.loads((ROOT / "tests/data/demo_answers.json").read_text(encoding="utf-8"))[::64]
ENDLESS = ["--prompt", "An increasing sequence: one,", "--max_new_tokens", "400", "--ignore_eos", "True"]


@contextmanager
def commands(folder, *both):
    """Two nodes of one command, by node."""
    port = free_port()
    started = []
    try:
        for node, arguments in enumerate(both):
            name, *rest = arguments
            started.append(NodeCommand(folder / str(node), *MINDGEN, name, *node_flags(node, port), *rest))
        yield started
    finally:
        for each in started:
            each.kill()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A float32 model whose sizes do not divide, its adapters, and what one rank says."""
    folder = tmp_path_factory.mktemp("nodes")
    model = make_model("qwen2-tied", folder / "model", torch.float32, vocab_size=331, intermediate_size=201)
    make_tokenizer("byte_level_bpe", model)
    (folder / "lora_adapter.json").write_text(
        json.dumps({name: str(make_adapter(name, model, folder)) for name in list(CONFIGS)[:2]})
    )
    with closing(LLM(model, folder)) as llm:
        return model, folder, ask(llm)


def ask(llm):
    """Greedy tokens, and the log-probabilities of all tokens at each of them; base and adapters in one batch."""
    prompts = [np.random.default_rng(seed).integers(3, 320, 5 + 9 * seed).tolist() for seed in range(3)]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=-1)
    outputs = llm.generate(prompts, params, [None, *list(CONFIGS)[:2]])
    found = [output.outputs[0] for output in outputs]
    logprobs = [[[each[token] for token in sorted(each)] for each in output.logprobs] for output in found]
    return [output.token_ids for output in found], np.array(logprobs)


PROGRAM = """
import sys
from mindgen import LLM
model, adapters, address, port = sys.argv[1:]
LLM(model, adapters, tensor_parallel_size=4, nnodes=2, node_rank=1, master_addr=address, master_port=int(port))
print("is never reached")
"""


@pytest.mark.parametrize("num_ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_on_two_nodes_say_what_one_rank_says(num_ranks, model, tmp_path):
    """Node 1 is a command, or a program."""
    folder, adapters, (tokens, logprobs) = model
    port = free_port()
    flags = node_flags(1, port, "--tp", num_ranks, "--model", folder, "--adapter_path", adapters)
    command = [*MINDGEN, "generate", *flags] if num_ranks == 2 else ["-c", PROGRAM, folder, adapters, MASTER, port]
    other = NodeCommand(tmp_path / "1", *command)
    try:
        sizes = {"tensor_parallel_size": num_ranks, "nnodes": 2, "master_addr": MASTER, "master_port": port}
        with closing(LLM(folder, adapters, **sizes)) as llm:
            found_tokens, found = ask(llm)
            assert len(other.workers("mindgen.runner.rank_process")) == num_ranks // 2
        assert found_tokens == tokens
        np.testing.assert_allclose(found, logprobs, atol=2e-5 * np.abs(logprobs).max())
        output, errors = other.end(0)
        assert "mindgen: node 1 of 2: node 0 is done" in errors and not output
    finally:
        other.kill()


def test_replicas_on_two_nodes_answer_in_order(tmp_path):
    """Each of two nodes has a replica; the answers are those of the demo, in the order of the prompts."""
    asked = ["--prompt", *(each["prompt"] for each in ANSWERS)]
    asked += ["--adapter_id", *(each["adapter_id"] or "base" for each in ANSWERS), "--max_new_tokens", "80"]
    with commands(tmp_path, ["generate", "--dp", 2, *asked, "--output", "jsonl"], ["generate", "--dp", 2]) as nodes:
        output, _ = nodes[0].end(0)
        _, errors = nodes[1].end(0)
    found = [json.loads(line) for line in output.splitlines()]
    assert [each["index"] for each in found] == [*range(len(ANSWERS))]
    assert [each["text"] for each in found] == [each["answer"] for each in ANSWERS]
    assert "node 1 of 2: serves node 0 at 127.0.0.2 with replica 1" in errors


def test_a_prompt_that_fails_is_the_verdict_of_both(tmp_path):
    """By MindFormers' command, on two nodes."""
    flags = ["generate_custom", "--use_parallel", "True", "--model_parallel", 2, "--seq_length", 16]
    with commands(tmp_path, [*flags, "--input_data", "one, " * 40], flags) as nodes:
        _, errors = nodes[0].end(1)
        reason = re.search("mindgen: error: (the prompt has .*)", errors)[1]
        assert f"mindgen: error: {reason}" in nodes[1].end(1)[1]


@pytest.mark.slow
def test_another_model_is_refused_on_both_sides(tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in demo_folder().iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "config.json").read_text()) | {"rms_norm_eps": 0.5}
    (copy / "config.json").write_text(json.dumps(config))
    flags = ["generate", "--tp", 2, "--node_timeout", 8]
    with commands(tmp_path, [*flags, "--prompt", "one,"], [*flags, "--model", copy]) as nodes:
        for node in nodes:
            assert re.search(rf"its model is {copy} \(\w+\), node 0's is demo \(\w+\)", node.end(1)[1])


@pytest.mark.parametrize(
    "victim", ["node 1", *(pytest.param(each, marks=pytest.mark.slow) for each in ("the rank", "node 0"))]
)
def test_whoever_dies_ends_both(victim, tmp_path):
    flags = ["generate", "--tp", 2]
    with commands(tmp_path, [*flags, *ENDLESS], flags) as nodes:
        assert nodes[0].process.stdout.read(5)
        (rank,) = nodes[1].workers("mindgen.runner.rank_process")
        os.kill(
            {"the rank": rank, "node 1": nodes[1].process.pid, "node 0": nodes[0].process.pid}[victim], signal.SIGKILL
        )
        since = time.monotonic()
        if victim == "the rank":
            reason = f"mindgen: error: node 1 (127.0.0.1): rank 1 (process {rank}) was killed by signal 9"
            assert [reason in node.end(1)[1] for node in nodes] == [True, True]
        elif victim == "node 1":
            assert "mindgen: error: node 1 (127.0.0.1) is gone: the connection has ended" in nodes[0].end(1)[1]
            nodes[1].end(-9)
        else:
            assert "mindgen: error: node 0 (127.0.0.2) is gone: the connection has ended" in nodes[1].end(1)[1]
            nodes[0].end(-9)
        assert time.monotonic() - since < SECONDS


def test_ctrl_c_on_node_1_ends_both(tmp_path):
    flags = ["generate", "--dp", 2]
    prompts = ["--prompt", *["one,", "two,"] * 100, "--ignore_eos", "True"]
    with commands(tmp_path, [*flags, *prompts], flags) as nodes:
        assert nodes[0].process.stdout.read(2)
        nodes[1].process.send_signal(signal.SIGINT)
        assert "mindgen: error: node 1 (127.0.0.1): it was interrupted" in nodes[0].end(1)[1]
        assert "mindgen: interrupted" in nodes[1].end(130)[1]


@pytest.mark.slow
def test_a_cut_network_ends_both(tmp_path):
    """In a network of their own, whose only interface goes down."""
    if subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True).returncode != 0:
        pytest.skip("needs a network namespace, unshare and ip")
    holder = subprocess.Popen(["unshare", "-rn", "sh", "-c", "ip link set lo up && echo && read line"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    inside = ("nsenter", "-t", str(holder.pid), "-U", "-n", "--preserve-credentials")
    assert holder.stdout.readline()
    flags = ["--tp", 2]
    nodes = [
        NodeCommand(
            tmp_path / str(node), *MINDGEN, "generate", *node_flags(node, 29500, *flags, *ENDLESS), prefix=inside
        )
        for node in range(2)
    ]
    try:
        assert nodes[0].process.stdout.read(5)
        subprocess.run([*inside, "ip", "link", "set", "lo", "down"], check=True)
        since = time.monotonic()
        for node, other in zip(nodes, (r"node 1 \(127.0.0.1\)", r"node 0 \(127.0.0.2\)"), strict=True):
            assert re.search(f"mindgen: error: {other} is gone: the connection has ended", node.end(1)[1])
        assert time.monotonic() - since < SECONDS
    finally:
        for node in nodes:
            node.kill()
        holder.communicate()
