"""Files that lie: of every kind, with bytes changed, cut off or repeated, give an error of ours, or are read; nothing
else happens, and memory stays within bounds."""

import tracemalloc

import numpy as np
import pytest
import torch
from gguf_models import write_gguf
from safetensors.torch import save
from scratch_gpt import SIZES, random_weights
from scratch_gpt import save as save_training
from tiny_models import make_model

from mindgen.errors import MindgenError
from mindgen.store.gguf_folder import _files_of
from mindgen.weights.formats.gguf import map_gguf, read_model
from mindgen.weights.formats.mindspore_ckpt import map_mindspore_file, write_mindspore_file
from mindgen.weights.formats.safetensors import map_safetensors
from mindgen.weights.formats.torch_bin import map_torch_file

NUM_FILES = 1500
# Measuring takes several times as long as reading.
pytestmark = pytest.mark.parametrize("measured", [10, pytest.param(1, marks=pytest.mark.slow)])
# What a reader takes besides the file, of a size that does not grow with it.
MOST_BESIDES = 1 << 20


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


def check(path, content: bytes, look, header: int, measured: int) -> None:
    """Some of the changed files are read and many refused, with one line; of every so many the memory is measured."""
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(NUM_FILES):
        file = path.with_name(f"{number}{path.suffix}")
        changed = mutate(content, rng, header)
        file.write_bytes(changed)
        if number % measured == 0:
            tracemalloc.start()
        try:
            look(file)
        except MindgenError as error:
            assert str(error) and "\n" not in str(error)
            refused += 1
        if number % measured == 0:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2 * len(changed) + MOST_BESIDES
        file.unlink()
    assert NUM_FILES // 4 < refused < NUM_FILES


def look_at_all(read):
    """Reads every value."""

    def look(path) -> None:
        for tensor in read(path).values():
            np.add.reduce(tensor.data, axis=None)

    return look


def some_tensors() -> dict[str, torch.Tensor]:
    """Of several dtypes and numbers of axes; most of the file is what describes them."""
    generator = torch.Generator().manual_seed(0)
    return {
        f"model.layers.{layer}.{name}.weight": torch.rand(shape, generator=generator).to(dtype)
        for layer in range(4)
        for name, shape, dtype in (
            ("q_proj", (8, 6), torch.bfloat16),
            ("norm", (8,), torch.float32),
            ("scale", (), torch.float16),
            ("fp8", (4, 4), torch.float8_e4m3fn),
        )
        if not (name == "fp8" and layer)
    }


def look_at_gguf(path) -> None:
    for tensor in map_gguf(path).values():
        assert tensor.data.shape == tensor.shape
    _files_of(path, read_model(path))


def test_gguf(tmp_path, measured):
    model = make_model("llama-multi-head", tmp_path / "model", torch.float32, intermediate_size=192)
    content = write_gguf(model, tmp_path / "model.gguf", "Q8_0").read_bytes()
    check(tmp_path / "model.gguf", content, look_at_gguf, header=12_000, measured=measured)


def test_training_checkpoints(tmp_path, measured):
    path = save_training(tmp_path / "x.pt", random_weights(d_model=16, d_ff=16, vocab_size=40), SIZES)
    check(path, path.read_bytes(), look_at_all(map_torch_file), header=8_000, measured=measured)


def test_torch_files(tmp_path, measured):
    path = tmp_path / "pytorch_model.bin"
    torch.save({name: each for name, each in some_tensors().items() if each.dtype != torch.float8_e4m3fn}, path)
    check(path, path.read_bytes(), look_at_all(map_torch_file), header=3_000, measured=measured)


def test_safetensors(tmp_path, measured):
    content = save(some_tensors(), {"format": "pt"})
    check(tmp_path / "model.safetensors", content, look_at_all(map_safetensors), header=1_500, measured=measured)


def test_mindspore_checkpoints(tmp_path, measured):
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(some_tensors()))
    tensors = {name: each for name, each in map_safetensors(path).items() if "fp8" not in name}
    write_mindspore_file(tmp_path / "model.ckpt", tensors)
    content = (tmp_path / "model.ckpt").read_bytes()
    check(tmp_path / "model.ckpt", content, look_at_all(map_mindspore_file), header=len(content), measured=measured)
