"""A conversion that is killed goes on where it was, and what comes out is the same to the byte."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file
from tiny_models import make_model
from tiny_tokenizers import make_tokenizer

from mindgen.cli.main import main
from mindgen.store.convert import Conversion, convert_model, model_source

NUM_LAYERS = 10
# Each tensor takes a while, so that the process can be killed among them, or within one.
SLOWLY = """
import sys, time
from mindgen.cli.main import main
from mindgen.store import tensor_file
blocks = tensor_file._blocks
def slow_blocks(*arguments):
    for block in blocks(*arguments):
        half = block.reshape(-1)[: block.size // 2]
        yield half
        time.sleep(0.02)
        yield block.reshape(-1)[half.size :]
tensor_file._blocks = slow_blocks
main(sys.argv[1:])
"""


@pytest.fixture
def model(tmp_path):
    sizes = {"vocab_size": 352, "intermediate_size": 192, "num_hidden_layers": NUM_LAYERS}
    return make_tokenizer("byte_level_bpe", make_model("qwen3-untied", tmp_path / "model", torch.float32, **sizes))


def contents(target: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(target.iterdir())}


def num_noted(target: Path) -> int:
    journal = target.with_name(f".{target.name}.partial") / "progress"
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.is_file() else 0


def kill_after(command: list[str], target: Path, count: int, delay: float) -> None:
    """Kills the process so long after it has noted so many tensors more than there were."""
    wanted = num_noted(target) + count
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, *command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while num_noted(target) < wanted:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "flags, num_kills",
    [(["--format", "gguf", "--dtype", "q8_0"], 6), (["--format", "ckpt", "--names", "mindformers"], 1), ([], 1)],
)
def test_killed_at_random_moments(flags, num_kills, model, tmp_path, capsys):
    assert main(["convert", str(model), "--output", str(tmp_path / "whole"), *flags]) == 0
    target, rng = tmp_path / "killed", random.Random(num_kills)
    command = ["convert", str(model), "--output", str(target), *flags]
    for _ in range(num_kills):
        before = num_noted(target)
        kill_after(command, target, rng.randint(1, 6), rng.uniform(0, 0.02))
        assert not target.exists() and num_noted(target) > before
    noted = num_noted(target)
    capsys.readouterr()
    assert main(command) == 0
    assert f"tensors ({noted} of them by an earlier try)" in capsys.readouterr().out
    assert contents(target) == contents(tmp_path / "whole")
    assert {each.name for each in tmp_path.iterdir()} == {"model", "whole", "killed"}


class Interruption(BaseException):
    """As if the process ended here."""


def interrupt(monkeypatch, source, target, conversion, count=10):
    """Leaves what a process leaves that has written so many tensors."""
    with monkeypatch.context() as patch:
        patch.setattr("mindgen.store.tensor_file._blocks", interrupted_blocks(count))
        with pytest.raises(Interruption):
            convert_model(model_source(source), target, conversion)
    assert num_noted(target) == count


def interrupted_blocks(count):
    from mindgen.store.tensor_file import _blocks

    left = [count]

    def blocks(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise Interruption
        yield from _blocks(*arguments)

    return blocks


def num_kept(source, target, conversion):
    return convert_model(model_source(source), target, conversion).num_kept


def test_what_was_damaged_meanwhile_is_written_again(model, tmp_path, monkeypatch):
    conversion, target = Conversion("huggingface", ".ckpt", None), tmp_path / "made"
    convert_model(model_source(model), tmp_path / "whole", conversion)
    interrupt(monkeypatch, model, target, conversion)
    file = tmp_path / ".made.partial" / "made" / "model.ckpt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert 0 < num_kept(model, target, conversion) < 10
    assert contents(target) == contents(tmp_path / "whole")


def test_a_journal_that_ends_in_zeros(model, tmp_path, monkeypatch):
    """As a machine leaves it that lost its power."""
    conversion, target = Conversion("huggingface", ".safetensors", None), tmp_path / "made"
    interrupt(monkeypatch, model, target, conversion)
    journal = tmp_path / ".made.partial" / "progress"
    journal.write_bytes(journal.read_bytes()[:-30] + bytes(30) + b"\n\xff")
    assert num_kept(model, target, conversion) == 9


def test_other_work_starts_anew(model, tmp_path, monkeypatch):
    conversion, target = Conversion("huggingface", ".safetensors", None), tmp_path / "made"
    interrupt(monkeypatch, model, target, conversion)
    assert num_kept(model, target, Conversion("huggingface", ".safetensors", "float16")) == 0
    interrupt(monkeypatch, model, tmp_path / "second", conversion)
    os.utime(model / "model.safetensors")
    assert num_kept(model, tmp_path / "second", conversion) == 0
    assert not list(tmp_path.glob(".*"))


def test_two_at_once(model, tmp_path, capsys):
    (tmp_path / ".made.partial").mkdir()
    with (tmp_path / ".made.partial" / "progress").open("w") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert main(["convert", str(model), "--output", str(tmp_path / "made")]) == 1
    assert f"another process is writing {tmp_path / 'made'}" in capsys.readouterr().err
    assert main(["convert", str(model), "--output", str(tmp_path / "made")]) == 0


LIMITED = """
import resource, sys
from mindgen.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.exit(main(sys.argv[1:]))
"""


def test_no_room_leaves_nothing(model, tmp_path):
    command = ["convert", str(model), "--output", str(tmp_path / "made")]
    result = subprocess.run([sys.executable, "-c", LIMITED, *command], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == f"mindgen: error: [Errno 27] File too large: '{tmp_path / 'made'}'\n"
    assert {each.name for each in tmp_path.iterdir()} == {"model"}
    assert main(command) == 0


PEAK = """
import sys
from pathlib import Path
from mindgen.store.convert import Conversion, convert_model, model_source

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

small, large, target = map(Path, sys.argv[1:4])
conversion = Conversion(sys.argv[4], sys.argv[5], sys.argv[6])
convert_model(model_source(small), target / "small", conversion)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
convert_model(model_source(large), target / "large", conversion)
print(status("VmHWM") - before)
"""


HIDDEN, INNER = 256, 8192


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """Of 200 MB, in tensors of 8."""
    folder, num_layers = make_tokenizer("byte_level_bpe", tmp_path_factory.mktemp("large")), 8
    transformers.LlamaConfig(
        vocab_size=352, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=num_layers,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True, eos_token_id=2,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    shapes = {"model.embed_tokens": (352, HIDDEN), "model.norm": (HIDDEN,)}
    for layer in range(num_layers):
        block = f"model.layers.{layer}"
        shapes |= {f"{block}.self_attn.{part}_proj": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{block}.mlp.{part}_proj": (INNER, HIDDEN) for part in ("gate", "up")}
        shapes[f"{block}.mlp.down_proj"] = (HIDDEN, INNER)
        shapes |= {f"{block}.{norm}_layernorm": (HIDDEN,) for norm in ("input", "post_attention")}
    tensors = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "names, suffix, dtype",
    [
        ("huggingface", ".gguf", "q8_0"),
        ("mindformers", ".ckpt", "bfloat16"),
        ("huggingface", ".safetensors", "float16"),
    ],
)
def test_memory_is_that_of_about_one_tensor(names, suffix, dtype, model, large_model, tmp_path):
    one, all_of_them = INNER * HIDDEN * 4, (large_model / "model.safetensors").stat().st_size
    assert all_of_them > 24 * one
    arguments = [str(model), str(large_model), str(tmp_path), names, suffix, dtype]
    result = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) * 1024 < 4 * one, [result.stdout, one, all_of_them]
