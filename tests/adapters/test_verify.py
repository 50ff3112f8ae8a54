"""`mindgen adapters verify` says of every kind of adapter what serving it does."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
from adapter_options import EXTENDED, MERGED, SERVED, make_option
from peft import LoraConfig, get_peft_model
from tiny_adapters import CONFIGS, GPT2_CONFIGS, GPT2_MERGED, make_adapter
from tiny_models import load_oracle, make_model
from tiny_tokenizers import VOCAB_SIZE, make_tokenizer

from mindgen import LLM, SamplingParams
from mindgen.cli.main import main


def make_adapters(kind: str, model: Path, folder: Path) -> dict[str, Path]:
    if kind == "gpt2":
        made = {name: make_adapter(name, model, folder) for name in (*GPT2_CONFIGS, *GPT2_MERGED)}
        module = "c_attn"
    else:
        made = {name: make_adapter(name, model, folder) for name in CONFIGS}
        made |= {name: make_option(name, model, folder) for name in (*SERVED, *EXTENDED, *MERGED)}
        module = "q_proj"
    config = LoraConfig(r=128, target_modules=[module], fan_in_fan_out=kind == "gpt2", init_lora_weights=False)
    get_peft_model(load_oracle(model, torch.float32), config).save_pretrained(folder / "rank-128")
    tokens = Path(shutil.copytree(folder / "everything", folder / "new-tokens"))
    (tokens / "added_tokens.json").write_text('{"<new>": 7}')
    other = make_model("qwen3-untied", folder / "other", torch.float32, hidden_size=64)
    return made | {
        "rank-128": folder / "rank-128",
        "new-tokens": tokens,
        "of-another-model": make_adapter("everything", other, folder / "foreign"),
    }


@pytest.mark.parametrize(
    "kind",
    ["qwen2-tied", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("llama-biased-one-kv-head", "gpt2"))],
)
def test_verify_and_serving_agree(kind, tmp_path, capsys):
    model = make_model(kind, tmp_path / "model", torch.bfloat16, vocab_size=VOCAB_SIZE)
    make_tokenizer("byte_level_bpe", model)
    adapters = make_adapters(kind, model, tmp_path / "adapters")
    verdicts = {}
    for name, folder in adapters.items():
        capsys.readouterr()
        main(["adapters", "verify", str(folder), "--model", str(model)])
        answer = " ".join(capsys.readouterr().out.split()).partition("served in a batch: ")[2]
        assert answer.startswith(("yes", "no: "))
        verdicts[name] = answer
    with closing(LLM(str(model), adapters={name: str(folder) for name, folder in adapters.items()})) as llm:
        outputs = llm.generate([[3, 4, 5]] * len(adapters), SamplingParams(max_tokens=1), list(adapters))
    served = {name: output.error for name, output in zip(adapters, outputs, strict=True)}
    for name, error in served.items():
        assert verdicts[name].startswith("yes" if error is None else "no: "), (name, verdicts[name], error)
    refused = {name for name, error in served.items() if error is not None}
    assert {"new-tokens", "of-another-model"} < refused and "rank-128" not in refused


def test_a_model_that_is_not_served(tmp_path, capsys):
    """Its adapters can be merged all the same."""
    model = make_model("llama3-grouped-tied", tmp_path / "model", torch.float32)
    adapter = make_adapter("everything", model, tmp_path / "adapters")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["OtherForCausalLM"]}))
    assert main(["adapters", "verify", str(adapter), "--model", str(model)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "14 modules fit the model" in output and "served in a batch: no: " in output and "OtherForCausalLM" in output
