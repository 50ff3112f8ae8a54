"""Every kind of file of every kind of model: logits and greedy tokens of whoever wrote it, with peft's adapter on top.

A row of FORMATS writes a model's weights as that kind of file; `kinds` are the models that exist in it. A new kind of
model is a name in one of the tuples, a new kind of file a row.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scratch_gpt
import torch
from gguf_models import write_gguf
from mindformers_files import write_mindformers
from peft import PeftModel
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_adapters import make_adapter
from tiny_models import load_oracle, make_model, oracle_logits
from tiny_tokenizers import make_tokenizer

from mindgen.store.find_model import find_model

PROMPT = np.random.default_rng(0).integers(3, 300, 9).tolist()
NEW_TOKENS = 6
SHARD_BYTES = 200_000
HUGGING_FACE = ("llama-multi-head", "llama-biased-one-kv-head", "mistral", "qwen2-tied", "qwen3-untied", "gpt2")
MINDFORMERS = tuple(kind for kind in HUGGING_FACE if kind != "qwen3-untied")  # it has Hugging Face's names there
GGUF = ("llama-multi-head", "mistral", "qwen2-tied", "qwen3-untied", "gpt2")
SCRATCH = "scratch-gpt"
pytestmark = pytest.mark.usefixtures("own_cache")


def leave(folder: Path) -> Path:
    return folder


def write_shards(folder: Path, save: Callable[..., object], suffix: str) -> Path:
    """In several files, with their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in tensors.items():
        if sum(each.nbytes for each in files[-1].values()) + tensor.nbytes > SHARD_BYTES:
            files.append({})
        files[-1][name] = tensor
    stem = "pytorch_model" if suffix == ".bin" else "model"
    names = [f"{stem}-{number:05}-of-{len(files):05}{suffix}" for number in range(1, len(files) + 1)]
    assert len(names) > 2
    for name, own in zip(names, files, strict=True):
        save(own, folder / name)
    weight_map = {each: name for name, own in zip(names, files, strict=True) for each in own}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_bin(folder: Path) -> Path:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@dataclass(frozen=True)
class Format:
    """write: turns the Hugging Face folder of a float32 model into what --model names.

    is_container: the tensors are those of another row; all but the first kind are tested with what takes minutes.
    """

    name: str
    kinds: tuple[str, ...]
    write: Callable[[Path], Path]
    is_container: bool = False


FORMATS = (
    Format("safetensors", HUGGING_FACE, leave),
    Format("sharded safetensors", HUGGING_FACE, lambda folder: write_shards(folder, save_file, ".safetensors"), True),
    Format("bin", HUGGING_FACE, write_bin, True),
    Format("sharded bin", HUGGING_FACE, lambda folder: write_shards(folder, torch.save, ".bin"), True),
    Format("gguf", GGUF, lambda folder: write_gguf(folder, folder.parent / "model.gguf")),
    Format("mindformers ckpt", MINDFORMERS, lambda folder: write_mindformers(folder, ".ckpt")),
    Format("mindformers safetensors", MINDFORMERS, lambda folder: write_mindformers(folder, ".safetensors"), True),
    Format("pt", (SCRATCH,), leave),
)
CELLS = [
    pytest.param(
        each, kind, id=f"{each.name}, {kind}",
        marks=[pytest.mark.slow] if each.is_container and kind != each.kinds[0] else [],
    )
    for each in FORMATS
    for kind in each.kinds
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model as --model names it, its adapter, and the logits (V,) after tokens of the base and with the adapter."""

    model: Path
    adapter: Path
    oracles: tuple[Callable[[list[int]], np.ndarray], Callable[[list[int]], np.ndarray]]


def make_case(form: Format, kind: str, folder: Path) -> Case:
    if kind == SCRATCH:
        weights = scratch_gpt.random_weights()
        make_tokenizer("byte_level_bpe", folder)
        adapter, merged = scratch_gpt.make_lora(weights, folder / "adapter")
        model = form.write(scratch_gpt.save(folder / "model.pt", weights, scratch_gpt.SIZES))
        return Case(
            model, adapter, tuple(lambda ids, w=each: scratch_gpt.logits(w, ids)[-1] for each in (weights, merged))
        )
    model = make_model(kind, folder / "model", torch.float32)
    adapter = make_adapter("everything", model, folder)
    base, tuned = (load_oracle(model, torch.float32) for _ in range(2))
    tuned = PeftModel.from_pretrained(tuned, adapter)
    oracles = tuple(lambda ids, m=each: oracle_logits(m, ids).numpy() for each in (base, tuned))
    return Case(form.write(model), adapter, oracles)


@pytest.mark.parametrize("form, kind", CELLS)
def test_logits_and_greedy_tokens(form, kind, tmp_path):
    case = make_case(form, kind, tmp_path)
    probe = Probe(find_model(case.model), "float32", [case.adapter])
    sequences = [probe.open(PROMPT, slot) for slot in (0, 1)]
    for _ in range(NEW_TOKENS):
        ours = probe.advance(sequences)
        for row, sequence, oracle in zip(ours, sequences, case.oracles, strict=True):
            exact = oracle(sequence.token_ids)
            assert np.abs(row - exact).max() < 1e-4
            assert row.argmax() == exact.argmax()
            sequence.token_ids.append(int(row.argmax()))
    base, tuned = (each.token_ids for each in sequences)
    assert base != tuned
