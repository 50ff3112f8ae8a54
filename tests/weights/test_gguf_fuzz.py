"""Files that lie: GGUF files and torch checkpoints with bytes changed, cut off or repeated give an error of ours, or
are read; nothing else happens, and memory stays within bounds."""

import resource

import numpy as np
import torch
from gguf_models import write_gguf
from scratch_gpt import SIZES, random_weights, save
from tiny_models import make_model

from mindgen.errors import MindgenError
from mindgen.store.gguf_folder import _files_of
from mindgen.weights.formats.gguf import map_gguf, read_model
from mindgen.weights.formats.torch_pt import map_torch_checkpoint

NUM_FILES = 1500
MOST_GROWTH = 64 << 20


def mutate(content: bytes, rng: np.random.Generator, header: int) -> bytes:
    """Bytes become others, mostly near the beginning or the end, where the structure is; a part is lost or doubled."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        near = int(rng.integers(0, min(header, len(changed))))
        place = near if rng.random() < 0.7 else len(changed) - 1 - near
        changed[place] = int(rng.integers(0, 256))
    if rng.random() < 0.2:
        cut = int(rng.integers(0, len(changed)))
        changed = changed[:cut] if rng.random() < 0.5 else changed[:cut] + changed[cut // 2 :]
    return bytes(changed)


def check(path, content: bytes, look, header: int) -> int:
    """How many of the changed files are refused."""
    rng = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for number in range(NUM_FILES):
        file = path.with_name(f"{number}{path.suffix}")
        file.write_bytes(mutate(content, rng, header))
        try:
            look(file)
        except MindgenError as error:
            assert str(error)
            refused += 1
        file.unlink()
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert growth < max(MOST_GROWTH, 2 * len(content))
    return refused


def look_at_gguf(path) -> None:
    for tensor in map_gguf(path).values():
        assert tensor.data.shape == tensor.shape
    _files_of(path, read_model(path))


def test_gguf(tmp_path):
    model = make_model("llama-multi-head", tmp_path / "model", torch.float32, intermediate_size=192)
    content = write_gguf(model, tmp_path / "model.gguf", "Q8_0").read_bytes()
    assert check(tmp_path / "model.gguf", content, look_at_gguf, header=12_000) > NUM_FILES // 4


def look_at_torch(path) -> None:
    for tensor in map_torch_checkpoint(path).values():
        np.asarray(tensor.data).sum()


def test_torch_checkpoints(tmp_path):
    path = save(tmp_path / "x.pt", random_weights(d_model=16, d_ff=16, vocab_size=40), SIZES)
    assert check(path, path.read_bytes(), look_at_torch, header=8_000) > NUM_FILES // 4
