"""Weights from another process: in pieces, in order or refused, and whoever dies leaves nothing."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mindspore
import numpy as np
import pytest
import torch
from loops import engine_of, held_after
from safetensors.torch import load_file
from updates import PROMPTS, answers, make_lora, tokens

from mindgen import LLM, SamplingParams
from mindgen.errors import ConfigError
from mindgen.rlhf import WeightReceiver, WeightSender, WeightSendError
from mindgen.rlhf.protocol import PROTOCOL, SHARED_MEMORY, receive, send
from mindgen.rlhf.session import NAME_PREFIX

CHILD = """
import sys
import numpy as np
from mindgen.rlhf import WeightSender
assert not {"mindspore", "msgspec", "pydantic", "xxhash", "torch", "safetensors"} & sys.modules.keys()
tensors = {name: ("bfloat16", bits) for name, bits in np.load(sys.argv[2]).items()}
with WeightSender(sys.argv[1], bucket_bytes=int(sys.argv[3])) as sender:
    print("ready", flush=True)
    for number in range(int(sys.argv[4])):
        print(sender.send(tensors, expect_change=False)["checksum_after"], flush=True)
"""


@pytest.fixture(scope="module")
def llm(folders):
    llm = LLM(folders[0], block_size=4)
    yield llm
    llm.close()


@pytest.fixture
def path(llm, folders, tmp_path):
    llm.update_weights(folders[0], expect_change=False)
    before = set(SHARED_MEMORY.iterdir())
    with WeightReceiver(llm, tmp_path / "socket", idle_seconds=2):
        yield tmp_path / "socket"
    assert set(SHARED_MEMORY.glob(f"{NAME_PREFIX}*")) <= before
    assert not (tmp_path / "socket").exists()


@pytest.fixture(scope="module")
def saved(folders, tmp_path_factory):
    """The second checkpoint, as numpy alone can read it."""
    path = tmp_path_factory.mktemp("saved") / "weights.npz"
    np.savez(path, **{name: each.view(torch.int16).numpy() for name, each in weights(folders[1])})
    return path


def weights(folder: Path):
    return load_file(folder / "model.safetensors").items()


def start(path: Path, saved: Path, bucket_bytes: int, count: int) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(path), str(saved), str(bucket_bytes), str(count)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("bucket_bytes", [4096, 4097, 1 << 20])
def test_from_a_process_with_numpy_alone(llm, folders, path, saved, bucket_bytes):
    """The embedding has 63 KB: at 4 KB it comes in pieces."""
    child = start(path, saved, bucket_bytes, 2)
    written, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    fresh = LLM(folders[1], block_size=4)
    assert written.split() == [fresh.weight_checksum] * 2 == [llm.weight_checksum] * 2
    assert tokens(answers(llm)) == tokens(answers(fresh))
    fresh.close()


def test_an_adapter_and_its_report(llm, folders, path, tmp_path):
    folder = make_lora(folders[0], tmp_path / "lora", 1)
    config = json.loads((folder / "adapter_config.json").read_text())
    with WeightSender(path) as sender:
        report = sender.send(load_file(folder / "adapter_model.safetensors"), "A", 7, adapter_config=config)
        assert (report["target"], report["version"], report["modules"]) == ("A", 7, 6)
        with pytest.raises(WeightSendError, match="version 7, and version 7 is served"):
            sender.send({}, "A", 7)
        assert sender.send(dict(weights(folders[1])))["version"] == llm.weight_version
    assert {each.adapter_version for each in answers(llm, "A")} == {7}


def test_what_is_refused(llm, folders, path):
    before, name = llm.weight_checksum, "model.norm.weight"
    cases = [
        ({name: np.ones(3, np.float32)}, {}, r"has shape \(3,\), and the model's"),
        ({name: np.ones(96, np.int32)}, {}, "is int32: expected one of float32"),
        ({name: np.full(96, np.nan, np.float32)}, {}, "NaN or infinite"),
        ({"unknown": np.ones(96, np.float32)}, {}, "names that the model does not have: 'unknown'"),
        ({name: "text"}, {}, "must be a tensor of numpy, MindSpore or torch, not 'text'"),
        ({name: ("float16", np.ones(96, np.uint16))}, {}, "a pair of 'bfloat16' and an array of its bits"),
        ({name: torch.ones(96).to(torch.float8_e4m3fn)}, {}, "is torch.float8_e4m3fn on cpu"),
        ({name: np.array([None] * 96)}, {}, "is object: expected one of float32"),
        ({7: np.ones(96, np.float32)}, {}, "the name of a tensor must be a text, not 7"),
        ([3], {}, "expected a name and a tensor, not a int"),
        (None, {}, "expected names and tensors, not a NoneType"),
        ({}, {"adapter_config": {"r": object()}}, "cannot be sent: a object has no form in JSON"),
        ({}, {"adapter_config": {"r": 4}}, "adapter_config goes with an adapter's name as target"),
        ({}, {"target": "A", "expect_all": True}, "expect_all goes with the target 'base', and the target is adapter"),
        ({}, {"in_fligth": "abort"}, "no option 'in_fligth'"),
        ({}, {"version": -3}, "versions go up"),
    ]
    with WeightSender(path) as sender:
        for tensors, options, message in cases:
            with pytest.raises(WeightSendError, match=message):
                sender.send(tensors, **options)
    assert llm.weight_checksum == before
    assert llm.update_weights(folders[1]).modules > 0


@pytest.mark.parametrize("form", ["big-endian", "mindspore", "torch"])
def test_from_every_library(llm, folders, path, form):
    tensors = dict(weights(folders[1]))
    if form == "big-endian":
        given = {name: each.float().numpy().astype(">f4") for name, each in tensors.items()}
    elif form == "mindspore":
        given = {name: mindspore.Tensor(each.float().numpy(), mindspore.bfloat16) for name, each in tensors.items()}
    with WeightSender(path) as sender:
        report = sender.send(tensors if form == "torch" else given)
    assert report["checksum_after"] == llm.update_weights(folders[1], expect_change=False).checksum_after


def test_who_waits_no_longer_has_called_the_weights_off(llm, folders, path):
    before = llm.weight_version, llm.weight_checksum
    long = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
    with WeightSender(path, seconds=2) as sender:
        with (
            held_after(llm, 6, lambda: llm.stream(PROMPTS, long)) as (stream,),
            pytest.raises(WeightSendError, match="could not serve within 2 seconds: .* it is called off"),
        ):
            sender.send(weights(folders[1]))
        assert len([chunk for chunk in stream if chunk.output is not None]) == len(PROMPTS)
        assert (llm.weight_version, llm.weight_checksum) == before
        assert sender.send(weights(folders[1]))["version"] == before[0] + 1 == llm.weight_version


def test_two_at_once(llm, folders, path):
    def tensors():
        yield from list(weights(folders[1]))[:2]
        with WeightSender(path) as other, pytest.raises(WeightSendError, match="base are on their way"):
            other.send({})
        yield from list(weights(folders[1]))[2:]

    with WeightSender(path) as sender:
        assert sender.send(tensors())["missing"] == []


def test_two_receivers(llm, path, tmp_path):
    with pytest.raises(ConfigError, match="another process receives weights there"):
        WeightReceiver(llm, path)
    with pytest.raises(ConfigError, match="is too long for a socket"):
        WeightReceiver(llm, tmp_path / ("x" * 120))
    with pytest.raises(WeightSendError, match="no receiver of weights listens there"):
        WeightSender(tmp_path / "nobody")


MESSAGES = [
    (b"\x00\x00\x00\x02{]", "is no JSON"),
    (b"\xff\xff\xff\xff", "a message claims 4294967295 bytes"),
    ({"type": "end"}, "'end' is no message that is expected here"),
    ({"type": "bucket", "buffer": 9, "pieces": []}, "there is no buffer 9"),
    ({"type": "bucket", "buffer": 0, "pieces": [["model.norm.weight", "pickle", [96], 0, 0, 1]]}, "no dtype"),
    ({"type": "bucket", "buffer": 0, "pieces": [["model.norm.weight", "float32", [96], 8, 0, 1]]}, "not the next"),
    ({"type": "bucket", "buffer": 0, "pieces": [["model.norm.weight", "float32", [96], 0, 0, 9999]]}, "is larger than"),
    ({"type": "bucket", "buffer": 0, "pieces": [["x", "float32", [2**60], 0, -1, 1]]}, "Expected `int` >= 0"),
    ({"type": "bucket", "buffer": 0, "pieces": [["x", "float32", "96", 0, 0, 1]]}, "Expected `array`"),
]


@pytest.mark.parametrize(("message", "reason"), MESSAGES)
def test_a_stranger_says_what_is_wrong(llm, path, message, reason):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        send(connection, {"type": "hello", "protocol": PROTOCOL, "bucket_bytes": 4096})
        assert receive(connection)["type"] == "ready"
        send(connection, {"type": "attached"})
        assert receive(connection)["type"] == "ok"
        if reason != "'end' is no message that is expected here":
            send(connection, {"type": "begin", "target": "base"})
            assert receive(connection)["type"] == "ok"
        connection.sendall(message) if isinstance(message, bytes) else send(connection, message)
        answer = receive(connection)
        assert answer["type"] == "error" and reason in answer["message"]
        with pytest.raises(EOFError):
            receive(connection)
    assert llm._model.updates._open is None or wait_until_closed(llm)


def wait_until_closed(llm: LLM) -> bool:
    deadline = time.monotonic() + 10
    while llm._model.updates._open is not None and time.monotonic() < deadline:
        time.sleep(0.005)
    return llm._model.updates._open is None


def test_a_sender_that_says_nothing_is_given_up(llm, path, folders):
    def tensors():
        yield next(iter(weights(folders[1])))
        time.sleep(3)
        yield next(iter(weights(folders[1])))

    with WeightSender(path) as sender, pytest.raises(WeightSendError, match="nothing has come for 2 seconds"):
        sender.send(tensors())
    assert wait_until_closed(llm)


@pytest.mark.parametrize("count", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_a_sender_that_is_killed_leaves_nothing(llm, folders, path, saved, count):
    """Wherever it is killed, all is old or all is new, and the next one may send."""
    fresh = LLM(folders[1], block_size=4)
    states = {llm.weight_checksum: tokens(answers(llm)), fresh.weight_checksum: tokens(answers(fresh))}
    fresh.close()
    chance = random.Random(0)
    for _ in range(count):
        llm.update_weights(folders[0], expect_change=False)
        child = start(path, saved, 4096, 1000)
        time.sleep(chance.random() * 0.2)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert wait_until_closed(llm)
        assert tokens(answers(llm)) == states[llm.weight_checksum]
        assert not list(SHARED_MEMORY.glob(f"{NAME_PREFIX}*"))
        assert not engine_of(llm)._runner._staged
    assert not llm.generate([[5]], SamplingParams(max_tokens=1))[0].error
