"""500 malformed adapters: each is refused in one line, in bounded memory, and nothing in them is executed."""

import contextlib
import json
import random
import tracemalloc

import pytest
import torch
from good_adapter import CONFIG, MODULES, tensors, write_good
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import KINDS
from safetensors.numpy import save_file

from mindgen.adapters.formats.peft import MINDSPORE, SAFETENSORS, TORCH
from mindgen.adapters.loader import load_adapter
from mindgen.errors import MindgenError
from mindgen.weights.formats.mindspore_ckpt import write_mindspore_file
from mindgen.weights.mapped_tensor import MappedTensor

CASES = [(damage, seed) for damage, count in KINDS.items() for seed in range(count)]
MAX_BYTES = 64_000_000


def test_count():
    assert len(CASES) == 500


def test_the_good_one_loads(tmp_path):
    write_good(tmp_path / "A1")
    assert load_adapter("A1", tmp_path / "A1", MODULES).pairs.keys() == MODULES.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("damage", "seed"), CASES, ids=[f"{damage.__name__}-{seed}" for damage, seed in CASES])
def test_refused(damage, seed, tmp_path):
    folder, marker = tmp_path / "A1", tmp_path / "executed"
    write_good(folder)
    damage(folder, random.Random(seed), marker)
    tracemalloc.start()
    try:
        with pytest.raises(MindgenError) as raised:
            load_adapter("A1", folder, MODULES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(raised.value)
    assert message and message.isprintable() and len(message) < 2000, message
    assert peak < MAX_BYTES
    assert not marker.exists()


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    """The good adapter's tensors in each container."""
    folder = tmp_path_factory.mktemp("contents")
    torch.save({name: torch.from_numpy(value) for name, value in tensors().items()}, folder / TORCH)
    mapped = {name: MappedTensor("float32", value) for name, value in tensors().items()}
    write_mindspore_file(folder / MINDSPORE, mapped)
    save_file(tensors(), folder / SAFETENSORS)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9))
@pytest.mark.parametrize("name", [SAFETENSORS, TORCH, MINDSPORE])
def test_any_damage_is_refused_or_read(name, seed, contents, tmp_path_factory):
    """Bytes changed, cut out, doubled anywhere: the adapter loads, or is refused in one line."""
    rng = random.Random(seed)
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(contents[name])
    for _ in range(rng.randrange(1, 4)):
        place, length = rng.randrange(len(content)), rng.choice([1, 1, 1, 4, 100])
        piece = bytes(content[place : place + length])
        content[place : place + length] = rng.choice([bytes([rng.randrange(256)]) * length, b"", piece * 2])
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    (folder / name).write_bytes(content)
    with contextlib.suppress(MindgenError):
        assert load_adapter("A1", folder, MODULES).pairs.keys() == MODULES.keys()
