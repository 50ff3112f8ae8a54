"""Folders that say things twice: the engine takes what transformers takes, and tells."""

import json
import shutil

import pytest
import torch
from engine_probe import Ask, EngineProbe
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB_SIZE, load_oracle, make_model

from mindgen.cli.main import main
from mindgen.errors import ConfigError
from mindgen.sampling_params import SamplingParams
from mindgen.weights.rank_files import map_rank_folder
from mindgen.weights.weight_files import find_weights

PROMPT = list(range(3, 20))


def assert_greedy_tokens_are_those_of_transformers(folder) -> None:
    (request,) = EngineProbe(folder).run([Ask(PROMPT, SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))])
    expected = load_oracle(folder, torch.float32).generate(
        torch.tensor([PROMPT]), max_new_tokens=30, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert request.sequences[0].token_ids == expected[0].tolist()


def give_another_head(folder) -> None:
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(5)
    tensors["lm_head.weight"] = torch.randn(VOCAB_SIZE, 96)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", ["qwen2-tied", "gpt2"])
def test_a_tied_model_with_a_head_of_its_own(kind, tmp_path, capsys):
    folder = make_model(kind, tmp_path, torch.float32)
    give_another_head(folder)
    assert_greedy_tokens_are_those_of_transformers(folder)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mindgen: warning")]
    assert warnings == [
        f"mindgen: warning: {folder}: config.json ties the head to the embedding, but the checkpoint has both, and "
        "they differ: its lm_head.weight is used"
    ]


def test_a_tied_model_that_repeats_its_table(tmp_path, capsys):
    folder = make_model("qwen2-tied", tmp_path, torch.float32)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert not find_weights(folder, None, 1).has_own_head()
    assert_greedy_tokens_are_those_of_transformers(folder)
    assert "warning" not in capsys.readouterr().err


def test_a_head_of_its_own_is_sharded(tmp_path, capsys):
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    give_another_head(folder)
    target = tmp_path / "two"
    assert main(["shard", str(folder), "--tp", "2", "--output", str(target)]) == 0
    assert "its lm_head.weight is used" in capsys.readouterr().err
    head = load_file(folder / "model.safetensors")["lm_head.weight"].numpy()
    for rank in range(2):
        own = map_rank_folder(target / f"rank_{rank}")["lm_head.weight"].data
        assert (own == head[160 * rank : 160 * (rank + 1)]).all()
    assert find_weights(folder, target, 2).has_own_head()


def test_a_file_beside_an_index(tmp_path, capsys):
    """transformers takes the file."""
    folder = make_model("qwen3-untied", tmp_path / "model", torch.float32)
    other = make_model("qwen3-untied", tmp_path / "other", torch.float32, max_shard_size="150KB", vocab_size=VOCAB_SIZE)
    for path in other.glob("model*.safetensors*"):
        tensors = load_file(path) if path.suffix == ".safetensors" else None
        if tensors is None:
            shutil.copy(path, folder)
        else:
            save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, folder / path.name)
    assert_greedy_tokens_are_those_of_transformers(folder)
    expected = f"{folder} has model.safetensors and model.safetensors.index.json: model.safetensors is used\n"
    assert f"mindgen: warning: {expected}" in capsys.readouterr().err


@pytest.mark.parametrize("max_shard_size", ["5GB", "150KB"])
def test_other_files_do_not_count_as_weights(tmp_path, max_shard_size):
    folder = make_model("qwen3-untied", tmp_path, torch.float32, max_shard_size)
    named = find_weights(folder, None, 1).num_bytes("float32")
    assert named == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "model-00001-of-00099.safetensors"):
        save_file({"stray": torch.zeros(100_000)}, folder / name)
    assert find_weights(folder, None, 1).num_bytes("float32") == named


def test_longer_sequences_than_the_model_was_made_for(tmp_path):
    folder = make_model("gpt2", tmp_path, torch.float32)
    with pytest.raises(ConfigError, match=r"max_model_len \(258\) is more than the 256 positions"):
        EngineProbe(folder, max_model_len=258)


def test_min_tokens_where_no_token_ends(tmp_path):
    folder = make_model("qwen3-untied", tmp_path, torch.float32)
    config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": [VOCAB_SIZE, VOCAB_SIZE + 7]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    (request,) = EngineProbe(folder).run([Ask(PROMPT, SamplingParams(temperature=0, min_tokens=5, max_tokens=8))])
    assert request.sequences[0].finish_reason == "length" and len(request.sequences[0].output_token_ids) == 8
