"""MindFormers' predict_*.yaml as --config: the same texts as the Hugging Face folder of the same weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from mindformers_files import fused, mindformers_llama, predict_yaml, save_ckpt
from safetensors.torch import load_file
from tiny_adapters import make_adapter
from tiny_models import KINDS, make_model
from tiny_tokenizers import make_tokenizer

from mindgen.cli.main import main
from mindgen.errors import ConfigError
from mindgen.settings import load_settings
from mindgen.weights.architecture import read_model_config

pytestmark = pytest.mark.usefixtures("own_cache")
SIZES = {"vocab_size": 340, "num_hidden_layers": 2}


@pytest.fixture
def model(tmp_path):
    """A Hugging Face folder, and beside it what MindFormers has of it: a .ckpt, a tokenizer.model, a YAML."""
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32, **SIZES)
    make_tokenizer("sentencepiece_bpe", folder)
    save_ckpt(mindformers_llama(load_file(folder / "model.safetensors")), tmp_path / "llama.ckpt")
    return folder


def generate(capsys, *flags):
    assert main(["generate", "--prompt", "Hello world", *flags]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_same_text_as_hugging_face_s_folder(model, capsys):
    expected, _ = generate(capsys, "--model", str(model), "--dtype", "float32", "--max_length", "40")
    text, said = generate(capsys, "--config", str(predict_yaml(model)))
    assert text == expected
    assert (
        "of no meaning for inference, and ignored: context, output_dir, trainer, model_config.batch_size, model_config."
        in said
    )
    assert "model_config.use_past" in said and "model_config.hidden_size" not in said
    assert "sampling is do_sample False, top_k 3, top_p 1, repetition_penalty 1, max_length 40, seed 0" in said


@pytest.mark.parametrize("pet_type", ["slora", "lora"])
def test_an_adapter_of_pet_config(pet_type, model, capsys):
    adapter = make_adapter("everything", model, model.parent)
    (model.parent / "lora_adapter.json").write_text(json.dumps({"own": str(adapter)}))
    flags = ["--adapter_path", str(model.parent), "--adapter_id", "own", "--dtype", "float32", "--max_length", "40"]
    expected, _ = generate(capsys, "--model", str(model), *flags)
    for path in (model.parent, model.parent / "lora_adapter.json"):
        config = predict_yaml(model, pet_config={"pet_type": pet_type, "lora_rank": 8, "adapter_path": str(path)})
        assert generate(capsys, "--config", str(config), "--adapter_id", "own")[0] == expected


def test_lora_within_the_checkpoint_is_no_adapter(model, capsys):
    load_settings(predict_yaml(model, pet_config={"pet_type": "lora", "lora_rank": 8}), {})
    assert "no adapter_path, and LoRA in the model's own checkpoint is not served" in capsys.readouterr().err


def test_fused_weights_in_the_order_that_is_named(model, capsys):
    expected, _ = generate(capsys, "--model", str(model), "--dtype", "float32", "--max_length", "40")
    for layout in ("plain", "grouped"):
        tensors = fused(mindformers_llama(load_file(model / "model.safetensors")), layout, num_kv_heads=4)
        save_ckpt(tensors, model.parent / "llama.ckpt")
        config = predict_yaml(model, qkv_concat=True, qkv_concat_layout=layout)
        assert generate(capsys, "--config", str(config))[0] == expected
    with pytest.raises(ConfigError, match="qkv_concat_layout must be plain .* or grouped .*, not None"):
        load_settings(predict_yaml(model, qkv_concat=True), {})


@pytest.mark.parametrize("source", ["llama.ckpt", "ranks"])
def test_auto_trans_ckpt_of_mindformers_names(source, model, capsys, monkeypatch):
    """MindFormers has the whole checkpoint in rank_0 then."""
    expected, _ = generate(capsys, "--model", str(model), "--dtype", "float32", "--max_length", "40")
    monkeypatch.chdir(model.parent)
    (model.parent / "ranks/rank_0").mkdir(parents=True)
    shutil.copy(model.parent / "llama.ckpt", model.parent / "ranks/rank_0")
    config = str(predict_yaml(model))
    text, _ = generate(capsys, "--config", config, "--load_checkpoint", source, "--auto_trans_ckpt", "--tp", "2")
    assert text == expected
    assert sorted(each.name for each in Path("output/transform_ckpt").glob("rank_*")) == ["rank_0", "rank_1"]


def test_numbers_without_a_point_are_numbers(model):
    """1e-6 is a text to YAML."""
    path = predict_yaml(model, rms_norm_eps="1e-6", theta="1e4")
    config = read_model_config(Path(load_settings(path, {}).model.path))
    assert (config.norm_epsilon, config.rope.theta) == (1e-6, 10000.0)


def test_without_do_sample_it_samples(model):
    path = predict_yaml(model)
    content = yaml.safe_load(path.read_text())
    for name in ("do_sample", "top_k", "max_decode_length"):
        del content["model"]["model_config"][name]
    path.write_text(yaml.safe_dump(content))
    generation = load_settings(path, {}).generation
    assert (generation.do_sample, generation.top_k, generation.max_length) == (True, 5, 1024)


def _without_load_checkpoint(path):
    content = yaml.safe_load(path.read_text()) | {"load_checkpoint": ""}
    path.write_text(yaml.safe_dump(content))
    return path


def test_checkpoint_name_or_path_is_taken_where_it_is_a_path(model, capsys):
    checkpoint = str(model.parent / "llama.ckpt")
    expected, _ = generate(capsys, "--config", str(predict_yaml(model)))
    path = _without_load_checkpoint(predict_yaml(model, checkpoint_name_or_path=checkpoint))
    assert generate(capsys, "--config", str(path))[0] == expected
    other = predict_yaml(model, checkpoint_name_or_path=str(model))
    assert load_settings(other, {}).load_checkpoint == checkpoint
    assert "model_config.checkpoint_name_or_path" in capsys.readouterr().err


def test_a_yaml_that_names_no_weights(model):
    path = _without_load_checkpoint(predict_yaml(model, checkpoint_name_or_path="llama2_7b"))
    message = r"names no load_checkpoint \(checkpoint_name_or_path 'llama2_7b' is no path that exists\): say there"
    with pytest.raises(ConfigError, match=message):
        load_settings(path, {})
    assert load_settings(path, {"load_checkpoint": "x.ckpt"}).load_checkpoint == "x.ckpt"
    assert load_settings(path, {"model.path": "demo"}).model.path == "demo"


def test_sizes_of_ranks_count_with_use_parallel(model):
    assert load_settings(predict_yaml(model), {}).engine.tensor_parallel_size == 1
    path = predict_yaml(model)
    path.write_text(path.read_text().replace("use_parallel: false", "use_parallel: true"))
    assert load_settings(path, {}).engine.tensor_parallel_size == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"type": "TelechatConfig"},
            "type 'TelechatConfig' is not served; served are LlamaConfig, GPT2Config, ChatGLM2",
        ),
        ({"extend_method": "NTK"}, "extend_method 'NTK' is not served"),
        ({"moe_config": {"expert_num": 8}}, "moe_config and attn_proj_has_bias are not served"),
        ({"pet_config": "slora"}, "pet_config must hold keys and values, not 'slora'"),
        ({"num_heads": 5}, "yaml: model.model_config: .*hidden_size 96 does not divide into 5 heads"),
        ({"num_layers": "two"}, "yaml: model.model_config: num_layers must be .*, not 'two'"),
        ({"theta": "abc"}, "yaml: model.model_config: theta must be .*, not 'abc'"),
        ({"rms_norm_eps": "abc"}, "yaml: model.model_config: rms_norm_eps must be .*, not 'abc'"),
        ({"top_k": "three"}, "generation.top_k must be"),
    ],
)
def test_what_is_not_served(changes, message, model):
    with pytest.raises(ConfigError, match=message):
        load_settings(predict_yaml(model, **changes), {})


CONFIGS = Path(__file__).parents[2] / "configs"
# What stands in the place of the sizes of a model_config.
TINY = {
    "predict_llama2_7b": ("llama-multi-head", {"num_heads": 4, "intermediate_size": 200}),
    "predict_llama2_7b_slora": ("llama-multi-head", {"num_heads": 4, "intermediate_size": 200}),
    "predict_qwen2_5_7b_instruct": ("qwen2-untied", {"num_heads": 6, "n_kv_heads": 2, "intermediate_size": 200}),
    "predict_glm4_9b": (
        "glm",
        {
            "padded_vocab_size": 340,
            "num_attention_heads": 6,
            "kv_channels": 16,
            "ffn_hidden_size": 200,
            "rope_ratio": 1,
            "layernorm_epsilon": "1.5625e-07",
        },
    ),
    "predict_gpt2_small": ("gpt2", {"num_heads": 6, "intermediate_size": 200, "layernorm_epsilon": 1e-5}),
    "predict_qwen3": ("qwen3-untied", {}),
}


def test_every_configuration_of_ours_is_tried():
    assert sorted(TINY) == sorted(each.stem for each in CONFIGS.glob("predict_*.yaml"))


@pytest.mark.parametrize("name", TINY)
def test_our_configurations_at_tiny_sizes(name, tmp_path, capsys, monkeypatch):
    kind, sizes = TINY[name]
    monkeypatch.setitem(KINDS, "qwen2-untied", (*KINDS["qwen2-tied"][:4], {"tie_word_embeddings": False}))
    folder = make_model(kind, tmp_path / "model", torch.float32, vocab_size=340)
    make_tokenizer("sentencepiece_bpe" if "llama" in name or "glm" in name else "vocab_and_merges", folder)
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    model_config = content["model"]["model_config"] | {"compute_dtype": "float32"}
    if "pretrained_model_dir" in content:
        content["pretrained_model_dir"] = str(folder)
    else:
        model_config |= {"hidden_size": 96, "num_layers": 2, "vocab_size": 340, "seq_length": 256, "num_blocks": 64}
        model_config |= {"eos_token_id": 2, "rms_norm_eps": 1e-6, "max_decode_length": 30, **sizes}
        for key in ("theta",):
            model_config.pop(key, None)
        content["load_checkpoint"] = str(folder)
        files = content["processor"]["tokenizer"]
        for key in ("vocab_file", "merges_file"):
            if key in files:
                files[key] = str(folder / Path(files[key]).name)
    if "pet_config" in model_config:
        adapter = make_adapter("everything", folder, tmp_path)
        (tmp_path / "lora_adapter.json").write_text(json.dumps({"own": str(adapter)}))
        model_config["pet_config"]["adapter_path"] = str(tmp_path)
    content["model"]["model_config"] = model_config
    path = tmp_path / "predict.yaml"
    path.write_text(yaml.safe_dump(content))
    flags = ["--do_sample", "False", "--max_length", "30"] + (["--adapter_id", "own"] if "slora" in name else [])
    text, _ = generate(capsys, "--config", str(path), *flags)
    own = ["--adapter_path", str(tmp_path)] if "slora" in name else []
    penalty = ["--repetition_penalty", str(model_config.get("repetition_penalty", 1.0))]
    expected, _ = generate(capsys, "--model", str(folder), "--dtype", "float32", *flags, *own, *penalty)
    assert text == expected
