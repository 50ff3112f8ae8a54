"""Adapters that say which model they were trained for: used with another, they are refused by its name."""

import json

import pytest
import torch
from tiny_adapters import make_adapter
from tiny_models import make_model
from tiny_tokenizers import make_tokenizer

from mindgen import LLM, SamplingParams
from mindgen.adapters.base_mark import MARK_FILE, mark_base
from mindgen.cli.main import main
from mindgen.errors import AdapterError

GREEDY = SamplingParams(temperature=0, max_tokens=3)


@pytest.fixture
def models(tmp_path):
    """Two of one shape, and the first in bfloat16."""
    names = {"first": (0, torch.float32), "second": (5, torch.float32), "rounded": (0, torch.bfloat16)}
    return {
        name: make_tokenizer(
            "byte_level_bpe", make_model("qwen2-tied", tmp_path / name, dtype, seed=seed, vocab_size=340)
        )
        for name, (seed, dtype) in names.items()
    }


@pytest.fixture
def adapter(models, tmp_path):
    folder = make_adapter("everything", models["first"], tmp_path)
    mark_base(folder, "the-first", models["first"])
    return folder


def answer(model, adapter):
    return LLM(model, {"own": adapter}, dtype="float32").generate("Hello", GREEDY, "own")[0]


def test_its_own_model_has_it_in_any_dtype(models, adapter):
    for name in ("first", "rounded"):
        assert len(answer(models[name], adapter).outputs[0].token_ids) == 3


def test_another_model_is_refused_by_name(models, adapter, capsys):
    (adapter.parent / "lora_adapter.json").write_text(json.dumps({"own": str(adapter)}))
    flags = ["--model", str(models["second"]), "--adapter_path", str(adapter.parent), "--adapter_id", "own"]
    assert main(["generate", *flags, "--prompt", "Hello", "--max_tokens", "3"]) == 1
    expected = "adapter own was trained for the model the-first, and this is another one ("
    refused = capsys.readouterr().err
    assert expected in refused and "use it with --model the-first" in refused
    assert main(["adapters", "verify", str(adapter), "--model", str(models["second"])]) == 0
    assert "was trained for the model the-first" in " ".join(capsys.readouterr().out.split())


def test_the_stages_of_a_sharded_checkpoint_know_their_part(models, adapter, tmp_path):
    assert main(["shard", str(models["first"]), "--pp", "2", "--output", str(tmp_path / "ranks")]) == 0
    stages = {"checkpoint": tmp_path / "ranks", "pipeline_parallel_size": 2}
    llm = LLM(models["first"], {"own": adapter}, dtype="float32", **stages)
    (output,) = llm.generate("Hello", GREEDY, "own")
    llm.close()
    assert output.outputs[0].token_ids == answer(models["first"], adapter).outputs[0].token_ids
    second = LLM(models["second"], {"own": adapter}, dtype="float32", pipeline_parallel_size=2)
    with pytest.raises(AdapterError, match="was trained for the model the-first"):
        second.generate("Hello", GREEDY, "own")
    second.close()


def test_biases_which_ranks_have_in_part_are_no_mark(adapter):
    names = json.loads((adapter / MARK_FILE).read_text())["values"]
    assert len(names) == 3 and all(name.endswith("norm.weight") for name in names)


@pytest.mark.parametrize("content", ["[]", '{"name": "x"}', '{"name": "x", "values": {"a": []}}', "{"])
def test_a_malformed_mark_is_refused(content, models, adapter, capsys):
    (adapter / MARK_FILE).write_text(content)
    (adapter.parent / "lora_adapter.json").write_text(json.dumps({"own": str(adapter)}))
    flags = ["--model", str(models["first"]), "--adapter_path", str(adapter.parent), "--adapter_id", "own"]
    assert main(["generate", *flags, "--prompt", "Hello", "--max_tokens", "3"]) == 1
    assert MARK_FILE in capsys.readouterr().err.splitlines()[-1]
