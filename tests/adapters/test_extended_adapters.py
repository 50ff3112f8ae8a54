"""DoRA, biases, LoRA on embedding and head: each adapter's logits against peft, mixed in one batch."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_options import EXTENDED, make_option
from exactness import assert_as_exact_as_transformers
from peft import PeftModel
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_adapters import make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.adapters.formats.peft import read_adapter
from mindgen.adapters.loader import load_adapter
from mindgen.adapters.tools.merge import merge_adapter
from mindgen.errors import AdapterError

KINDS = ("llama3-grouped-tied", "llama-biased-one-kv-head", "qwen2-tied", "qwen3-untied")
PLAIN = ("everything", "query-value")
GENERATOR = np.random.default_rng(2)
PROMPTS = [GENERATOR.integers(3, VOCAB_SIZE, length).tolist() for length in GENERATOR.integers(1, 30, 13)]


@pytest.fixture(
    scope="module",
    params=[*KINDS[:2], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[2:])],
)
def model(request, tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """A model's folder and its adapters' folders by name."""
    folder = make_model(request.param, tmp_path_factory.mktemp("model"), torch.float32)
    adapters = tmp_path_factory.mktemp("adapters")
    made = {name: make_adapter(name, folder, adapters) for name in PLAIN}
    return folder, made | {name: make_option(name, folder, adapters) for name in EXTENDED}


def peft_logits(folder: Path, adapter: Path | None, prompt: list[int], dtype: torch.dtype) -> np.ndarray:
    network = load_oracle(folder, dtype)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, adapter).eval().to(dtype)
    return oracle_logits(network, prompt).numpy()


def expected_logits(model, dtype: torch.dtype) -> np.ndarray:
    folder, adapters = model
    each = [None, *adapters.values()]
    return np.stack([peft_logits(folder, adapter, PROMPTS[place], dtype) for place, adapter in enumerate(each)])


def test_a_mixed_batch_equals_peft(model, executor):
    folder, adapters = model
    probe = Probe(folder, "float32", list(adapters.values()), executor=executor)
    count = 1 + len(adapters)
    order = np.random.default_rng(3).permutation(count).tolist()
    ours = np.empty((count, VOCAB_SIZE), np.float32)
    ours[order] = probe.logits([PROMPTS[place] for place in order], order)
    expected = expected_logits(model, torch.float32)
    base = probe.logits(PROMPTS[:count])
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert np.abs(ours - base).max(1)[1:].min() > 0.01


def test_half_precision_is_as_exact_as_peft(model, executor):
    folder, adapters = model
    probe = Probe(folder, "bfloat16", list(adapters.values()), executor=executor)
    count = 1 + len(adapters)
    ours = probe.logits(PROMPTS[:count], list(range(count)))
    exact, theirs = (expected_logits(model, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert_as_exact_as_transformers(ours, theirs, exact)


def test_a_batch_equals_the_merge(model, tmp_path):
    folder, adapters = model
    has_biases = "biased" in folder.parent.name or "qwen2" in folder.parent.name
    names = [
        "dora",
        "dora-embedding",
        "dora-head",
        "embedding-and-head",
        "embedding-tied",
        *(["lora-bias"] if has_biases else []),
    ]
    probe = Probe(folder, "float32", [adapters[name] for name in names])
    ours = probe.logits(PROMPTS[: len(names)], list(range(1, len(names) + 1)))
    for place, name in enumerate(names):
        merge_adapter(folder, read_adapter(adapters[name]), tmp_path / name)
        merged = Probe(tmp_path / name, "float32").logits([PROMPTS[place]])[0]
        np.testing.assert_allclose(ours[place], merged, atol=1e-4)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_decoding_beside_others(model, dtype):
    """Each alone and all in one batch, through prompts and decoding steps; several logits of one sequence as well."""
    folder, adapters = model
    probe = Probe(folder, dtype, list(adapters.values()))
    slots = [3, 0, 7, 1, 5, 8, 0, 4]
    together = [probe.open(PROMPTS[place], slot) for place, slot in enumerate(slots)]
    alone = [probe.open(PROMPTS[place], slot) for place, slot in enumerate(slots)]
    for _ in range(3):
        mixed = probe.advance(together)
        single = np.concatenate([probe.advance([sequence]) for sequence in alone])
        np.testing.assert_array_equal(mixed, single)
        for first, second, row in zip(together, alone, single, strict=True):
            first.token_ids.append(int(row.argmax()))
            second.token_ids.append(int(row.argmax()))


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_others_run_the_graphs_they_always_ran(model, dtype):
    """Base and plain adapters give the same bits, whether or not extended adapters are in memory."""
    folder, adapters = model
    plain = [adapters[name] for name in PLAIN]
    without = Probe(folder, dtype, plain)
    probe = Probe(folder, dtype, [*plain, *(adapters[name] for name in EXTENDED)])
    slots = [0, 1, 2, 0, 2, 1]
    np.testing.assert_array_equal(probe.logits(PROMPTS[:6], slots), without.logits(PROMPTS[:6], slots))
    np.testing.assert_array_equal(probe.logits(PROMPTS[:3]), without.logits(PROMPTS[:3]))
    assert [inputs.has_slots for inputs in probe.runner._graphs] == [False, False]
    mixed = probe.logits(PROMPTS[:4], [0, 4, 0, 0])
    beside_plain = probe.logits(PROMPTS[:4], [0, 1, 0, 0])
    np.testing.assert_array_equal(mixed[[0, 2, 3]], beside_plain[[0, 2, 3]])


def test_what_is_not_the_models_own_is_refused(model, tmp_path):
    """PEFT saves the table that has LoRA beside it, and tokenizers their tokens: the model's own, or not."""
    folder, adapters = model
    probe = Probe(folder, "bfloat16", [])

    def refusal(adapter: Path) -> str:
        with pytest.raises(AdapterError) as raised:
            load_adapter("A1", adapter, probe.runner.report.modules, probe.runner.base_model)
        return str(raised.value)

    tensors = load_file(adapters["embedding-and-head"] / "adapter_model.safetensors")
    tables = [name for name in tensors if name.endswith(("embed_tokens.weight", "lm_head.weight", "base_layer.weight"))]
    assert tables
    tensors[tables[0]] = tensors[tables[0]] + 1.0
    other = shutil.copytree(adapters["embedding-and-head"], tmp_path / "other")
    save_file(tensors, other / "adapter_model.safetensors")
    assert "replaces " in refusal(other) and "merge it with" in refusal(other)
    known = shutil.copytree(adapters["everything"], tmp_path / "known")
    (known / "added_tokens.json").write_text('{"<new>": 7}')
    assert "brings tokens of its own, which is not served in a batch" in refusal(known)
    model_tokens = shutil.copytree(folder, tmp_path / "model")
    (model_tokens / "tokenizer.json").write_text('{"added_tokens": [{"id": 7, "content": "<new>"}]}')
    base = replace(probe.runner.base_model, folder=model_tokens)
    assert load_adapter("A1", known, probe.runner.report.modules, base).pairs
    no_biases = {name: tensor for name, tensor in base.tensors.items() if not name.endswith("bias")}
    if len(no_biases) < len(base.tensors):
        with pytest.raises(AdapterError, match="it trained .*bias.* no "):
            without_biases = replace(base, tensors=no_biases)
            load_adapter("A1", adapters["bias-lora-only"], probe.runner.report.modules, without_biases)
