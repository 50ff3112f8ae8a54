"""Merging against peft: the merged folder answers as the adapter on its base does."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_options import EXTENDED, MERGED, SERVED, make_option
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_adapters import CONFIGS, GPT2_CONFIGS, GPT2_MERGED, make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.adapters.formats.peft import read_adapter
from mindgen.adapters.tools.merge import merge_adapter
from mindgen.errors import AdapterError
from mindgen.kernels import dtypes
from mindgen.weights.folder import map_weights
from mindgen.weights.formats.mindspore_ckpt import write_mindspore_file
from mindgen.weights.mapped_tensor import MappedTensor

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
PROMPTS = np.random.default_rng(3).integers(3, VOCAB_SIZE, (3, 12)).tolist()


@pytest.fixture(scope="module", params=["qwen2-tied", "llama-biased-one-kv-head"])
def model(request, tmp_path_factory) -> Path:
    """With tied embeddings and without; both have biases."""
    folder = make_model(request.param, tmp_path_factory.mktemp("model"), torch.float32)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "lora_adapter.json").write_text("{}")
    return folder


def make(name: str, model: Path, folder: Path) -> Path:
    return make_adapter(name, model, folder) if name in CONFIGS else make_option(name, model, folder)


def logits(network: torch.nn.Module) -> np.ndarray:
    return np.stack([oracle_logits(network.eval(), prompt).numpy() for prompt in PROMPTS])


@pytest.mark.parametrize("name", [*CONFIGS, *SERVED, *EXTENDED, *MERGED])
def test_merged_folder_answers_as_peft(name, model, tmp_path):
    adapter = make(name, model, tmp_path)
    report = merge_adapter(model, read_adapter(adapter), tmp_path / "merged")
    base = logits(load_oracle(model, torch.float32))
    expected = logits(PeftModel.from_pretrained(load_oracle(model, torch.float32), adapter))
    ours = logits(load_oracle(tmp_path / "merged", torch.float32))
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert np.abs(ours - base).max() > 0.01 and report.changed
    tied = json.loads((model / "config.json").read_text())["tie_word_embeddings"]
    alone = (
        "dora-embedding",
        "dora-head",
        "embedding-tied",
        "embedding-and-head",
        "one-layer-and-head",
        "modules-to-save",
        "saved-embedding",
    )
    assert report.untied == (tied and name in alone)
    assert (tmp_path / "merged/tokenizer.json").is_file() and not (tmp_path / "merged/lora_adapter.json").exists()


@pytest.mark.parametrize("name", [*GPT2_CONFIGS, *GPT2_MERGED])
@pytest.mark.parametrize("has_head", [True, False])
def test_weights_that_are_stored_by_inputs(name, has_head, tmp_path):
    """GPT-2's, some of them square, so that no shape tells; also in a checkpoint whose names lack their prefix."""
    model = make_model("gpt2", tmp_path / "model", torch.float32)
    adapter = make_adapter(name, model, tmp_path)
    expected = logits(PeftModel.from_pretrained(load_oracle(model, torch.float32), adapter))
    if not has_head:
        tensors = load_file(model / "model.safetensors")
        bare = {key.removeprefix("transformer."): tensor for key, tensor in tensors.items()}
        save_file(bare, model / "model.safetensors")
    merge_adapter(model, read_adapter(adapter), tmp_path / "merged")
    np.testing.assert_allclose(logits(load_oracle(tmp_path / "merged", torch.float32)), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["everything", "dora"])
def test_weights_are_the_rounded_sums(name, dtype, tmp_path):
    """Against float64: the base's dtype is kept, and no value is further off than float32 arithmetic explains."""
    model = make_model("qwen3-untied", tmp_path / "model", getattr(torch, dtype))
    adapter = make(name, model, tmp_path)
    merge_adapter(model, read_adapter(adapter), tmp_path / "merged")
    tensors = load_file(adapter / "adapter_model.safetensors")
    base, merged = map_weights(model), map_weights(tmp_path / "merged")
    assert {key: (value.dtype, value.shape) for key, value in base.items()} == {
        key: (value.dtype, value.shape) for key, value in merged.items()
    }
    inexact = total = 0
    for key, tensor in merged.items():
        prefix = f"base_model.model.{key.removesuffix('.weight')}"
        exact = dtypes.to_float32(base[key].data, dtype).astype(np.float64)
        if f"{prefix}.lora_A.weight" in tensors:
            a, b = (tensors[f"{prefix}.lora_{half}.weight"].double().numpy() for half in "AB")
            exact = exact + 2.0 * b @ a
        if f"{prefix}.lora_magnitude_vector" in tensors:
            magnitude = tensors[f"{prefix}.lora_magnitude_vector"].double().numpy()
            exact *= (magnitude / np.linalg.norm(exact, axis=1))[:, None]
        ours = dtypes.to_float32(tensor.data, dtype)
        rounded = dtypes.to_float32(dtypes.from_float32(exact.astype(np.float32), dtype), dtype)
        np.testing.assert_allclose(ours, rounded, rtol=2**-7 if dtype == "bfloat16" else 2**-9, atol=1e-6)
        inexact += np.count_nonzero(ours != rounded)
        total += ours.size
    # Where the sum lies near the middle of two values, float32 arithmetic may round it to the other one.
    assert dtype == "float32" or inexact <= 2e-3 * total


def test_resized_vocabulary(tmp_path):
    """New tokens: PEFT saves the whole embedding, which the merged model takes over, with its configuration."""
    model = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    from peft import LoraConfig, get_peft_model

    network = load_oracle(model, torch.float32)
    network.resize_token_embeddings(VOCAB_SIZE + 8)
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    adapted.save_pretrained(tmp_path / "A1", save_embedding_layers=True)
    (tmp_path / "A1/added_tokens.json").write_text(json.dumps({"<new>": VOCAB_SIZE + 7}))
    (tmp_path / "A1/tokenizer.json").write_text('{"new": 1}')
    adapter = read_adapter(tmp_path / "A1")
    merge_adapter(model, adapter, tmp_path / "merged")
    np.testing.assert_allclose(logits(load_oracle(tmp_path / "merged", torch.float32)), logits(adapted), atol=1e-4)
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == VOCAB_SIZE + 8
    assert (tmp_path / "merged/tokenizer.json").read_text() == '{"new": 1}'
    (tmp_path / "A1/added_tokens.json").write_text(json.dumps({"<new>": VOCAB_SIZE + 8}))
    with pytest.raises(AdapterError, match="added_tokens.json goes up to 328 of 328 rows"):
        merge_adapter(model, read_adapter(tmp_path / "A1"), tmp_path / "again")


def test_shards_and_memory(tmp_path):
    """Several files, each no larger than the largest tensor, and about that much memory besides."""
    generator = torch.Generator().manual_seed(0)
    size = 4096
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(3)]
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    base = {name: torch.randn(size, size, generator=generator).bfloat16() for name in names}
    save_file(base, tmp_path / "model/model.safetensors")
    (tmp_path / "A1").mkdir()
    config = {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (tmp_path / "A1/adapter_config.json").write_text(json.dumps(config))
    half = {f"{name.removesuffix('.weight')}.lora_{half}.weight": torch.ones(4, 4) for name in names for half in "AB"}
    half = {
        name: torch.randn((4, size) if "lora_A" in name else (size, 4), generator=generator) for name in half
    }  # fmt: skip
    save_file(half, tmp_path / "A1/adapter_model.safetensors")
    adapter = read_adapter(tmp_path / "A1")
    tracemalloc.start()
    merge_adapter(tmp_path / "model", adapter, tmp_path / "merged")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    shard = 2 * 2 * size * size  # two tensors of 32 MB make 64 MB
    assert peak < 3 * shard
    index = json.loads((tmp_path / "merged/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 2
    for name in names:
        with safe_open(tmp_path / "merged" / index["weight_map"][name], "pt") as file:
            prefix = name.removesuffix(".weight")
            sum_ = base[name].float() + half[f"{prefix}.lora_B.weight"] @ half[f"{prefix}.lora_A.weight"]
            torch.testing.assert_close(file.get_tensor(name).float(), sum_, rtol=2**-7, atol=1e-3)


def test_nothing_is_left_behind(model, tmp_path):
    adapter = make("query-value", model, tmp_path)
    other = make_model("qwen3-untied", tmp_path / "other", torch.float32)
    with pytest.raises(AdapterError, match="does not fit the model"):
        merge_adapter(other, read_adapter(adapter), tmp_path / "merged")
    (tmp_path / "there").mkdir()
    with pytest.raises(AdapterError, match="is there already"):
        merge_adapter(model, read_adapter(adapter), tmp_path / "there")
    assert {path.name for path in tmp_path.iterdir()} == {"query-value", "other", "there"}


def test_mindformers_adapter_with_new_tokens(tmp_path):
    """LoRA and extra rows on embedding and head, as MindFormers' SLoraEmbedding and SLoraHead compute them."""
    model = make_model("qwen3-untied", tmp_path / "model", torch.float32)
    generator = np.random.default_rng(0)
    extra, rank, vocabulary = 4, 3, VOCAB_SIZE + 4
    base = {name: load_oracle(model, torch.float32).state_dict()[name].numpy() for name in TABLES}
    hidden = base["lm_head.weight"].shape[1]
    tensors = {
        "model.tok_embeddings.lora_a": (rank, vocabulary), "model.tok_embeddings.lora_b": (hidden, rank),
        "model.tok_embeddings.lora_embedding": (extra, hidden), "lm_head.lora_embedding": (extra, hidden),
        "lm_head.lora_a": (rank, hidden), "lm_head.lora_b": (vocabulary, rank),
    }  # fmt: skip
    arrays = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in tensors.items()}
    (tmp_path / "A1").mkdir()
    mapped = {name: MappedTensor("float32", array) for name, array in arrays.items()}
    write_mindspore_file(tmp_path / "A1/adapter_model.ckpt", mapped)
    config = {"r": rank, "lora_alpha": 6, "lora_dropout": 0.0, "target_modules": ["tok_embeddings", "lm_head"]}
    (tmp_path / "A1/adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "A1/added_tokens.json").write_text(json.dumps({f"<{i}>": VOCAB_SIZE + i for i in range(extra)}))
    merge_adapter(model, read_adapter(tmp_path / "A1"), tmp_path / "merged")
    merged = map_weights(tmp_path / "merged")
    one_hot = 2.0 * arrays["model.tok_embeddings.lora_a"].T @ arrays["model.tok_embeddings.lora_b"].T
    rows = np.concatenate([base["model.embed_tokens.weight"], arrays["model.tok_embeddings.lora_embedding"]])
    np.testing.assert_allclose(merged["model.embed_tokens.weight"].data, rows + one_hot, atol=1e-5)
    rows = np.concatenate([base["lm_head.weight"], arrays["lm_head.lora_embedding"]])
    expected = rows + 2.0 * arrays["lm_head.lora_b"] @ arrays["lm_head.lora_a"]
    np.testing.assert_allclose(merged["lm_head.weight"].data, expected, atol=1e-5)
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == vocabulary
