"""What config.json says in its several ways, against what transformers makes of it."""

import json

import numpy as np
import pytest
import torch
import transformers
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_models import load_oracle, make_model, oracle_logits

from mindgen.errors import ModelError
from mindgen.weights.architecture import read_model_config

PROMPT = np.random.default_rng(0).integers(3, 320, 150).tolist()
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 300.0}
LLAMA, QWEN2, QWEN3, GPT2 = "llama-multi-head", "qwen2-tied", "qwen3-untied", "gpt2"
GONE = object()  # in the place of a value: the key is not there

# name: (kind of model, what its config.json says instead)
SERVED = {
    "llama3 for as many positions as there are": (LLAMA, {"rope_scaling": LLAMA3}),
    "llama3, the original number beside it": (
        LLAMA,
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 32},
    ),
    "llama3, two original numbers": (
        LLAMA,
        {
            "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 64},
            "original_max_position_embeddings": 32,
        },
    ),
    "rope_scaling goes before rope_parameters": (LLAMA, {"rope_scaling": LLAMA3, "rope_parameters": LINEAR}),
    "with rope_theta beside both": (QWEN2, {"rope_scaling": LLAMA3, "rope_parameters": LINEAR, "rope_theta": 77.0}),
    "an empty rope_scaling": (QWEN3, {"rope_scaling": {}, "rope_parameters": LINEAR}),
    "the inner rope_theta": (QWEN3, {"rope_parameters": LINEAR, "rope_theta": 77.0}),
    "rope_theta alone": (LLAMA, {"rope_parameters": GONE, "rope_theta": 77}),
    "an older name of the rope type": (LLAMA, {"rope_scaling": {"type": "linear", "factor": 3}}),
    "no rope settings": (QWEN2, {"rope_parameters": None}),
    "no head_dim": (LLAMA, {"head_dim": None}),
    "Llama's defaults": (
        LLAMA,
        dict.fromkeys(("num_key_value_heads", "hidden_act", "rms_norm_eps", "tie_word_embeddings", "mlp_bias"), GONE),
    ),
    "another name of silu": (QWEN3, {"hidden_act": "swish"}),
    "no architectures": (QWEN3, {"architectures": GONE}),
    "biases that Qwen2 has not": (QWEN2, {"attention_bias": True, "mlp_bias": True}),
    "Qwen2's bias whatever the file says": (QWEN2, {"attention_bias": False}),
    "a window behind the last layer": (
        QWEN2,
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2, "layer_types": GONE},
    ),
    "a window that is not used": (QWEN3, {"use_sliding_window": False, "sliding_window": 4, "layer_types": GONE}),
    "GPT-2's sizes under their general names": (
        GPT2,
        {"n_embd": 48, "hidden_size": 96, "n_layer": GONE, "num_hidden_layers": 2, "n_ctx": 7},
    ),
    "GPT-2's defaults": (
        GPT2,
        dict.fromkeys(("layer_norm_epsilon", "activation_function", "tie_word_embeddings"), GONE),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    kinds = (LLAMA, QWEN2, QWEN3, GPT2)
    return {kind: make_model(kind, tmp_path_factory.mktemp(kind), torch.float32) for kind in kinds}


@pytest.fixture
def changed(models, tmp_path):
    """Makes a folder of a model whose config.json says something else."""

    def change(kind, changes, generation=None):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / "model.safetensors").symlink_to(models[kind] / "model.safetensors")
        raw = json.loads((models[kind] / "config.json").read_text()) | changes
        raw = {key: value for key, value in raw.items() if value is not GONE}
        (folder / "config.json").write_text(json.dumps(raw))
        if generation is not None:
            (folder / "generation_config.json").write_text(json.dumps(generation))
        return folder

    return change


@pytest.mark.parametrize("name", SERVED)
def test_logits_are_those_of_transformers(changed, name):
    folder = changed(*SERVED[name])
    exact = oracle_logits(load_oracle(folder, torch.float32), PROMPT).numpy()
    assert np.abs(Probe(folder, "float32").logits([PROMPT])[0] - exact).max() < 2e-4


@pytest.mark.parametrize(
    ("kind", "absent"),
    [(QWEN2, ["num_key_value_heads"]), (QWEN3, ["num_key_value_heads", "head_dim"]), (LLAMA, ["head_dim"])],
)
def test_sizes_that_are_not_said(changed, kind, absent):
    folder = changed(kind, {"num_attention_heads": 32, "hidden_size": 128, **dict.fromkeys(absent, GONE)})
    theirs, ours = transformers.AutoConfig.from_pretrained(folder), read_model_config(folder)
    heads = theirs.num_attention_heads
    head_size = getattr(theirs, "head_dim", theirs.hidden_size // heads)
    assert (ours.num_kv_heads, ours.head_size) == (theirs.num_key_value_heads, head_size)


WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "layer_types": GONE}
REFUSED = [
    (LLAMA, {"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.factor is missing"),
    (LLAMA, {"rope_scaling": {**LLAMA3, "factor": None}}, "rope_scaling.factor must be a valid number, not None"),
    (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor is missing"),
    (LLAMA, {"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}}, r"must be above low_freq_factor \(1.0\), not 1.0"),
    (LLAMA, {"rope_scaling": {**LLAMA3, "factor": "8"}}, "rope_scaling.factor must be a valid number, not '8'"),
    (LLAMA, {"rope_scaling": {"type": ["yarn"]}}, r"rope type \['yarn'\] is not served"),
    (LLAMA, {"rope_scaling": [1]}, r"rope_scaling must be a valid dictionary, not \[1\]"),
    (LLAMA, {"rope_parameters": GONE, "rope_theta": None}, "rope_theta must be a valid number, not None"),
    (QWEN3, {"rope_parameters": {"full_attention": LINEAR}}, "rope_parameters for each kind of layer is not served"),
    (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not served, only 1.0"),
    (LLAMA, {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5 is not served"),
    (LLAMA, {"rms_norm_eps": "x"}, "rms_norm_eps must be a valid number, not 'x'"),
    (LLAMA, {"rms_norm_eps": 0}, "rms_norm_eps must be greater than 0, not 0"),
    (LLAMA, {"rms_norm_eps": 1.5}, "rms_norm_eps must be less than or equal to 1, not 1.5"),
    (LLAMA, {"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number, not nan"),
    (LLAMA, {"tie_word_embeddings": "yes"}, "tie_word_embeddings must be a valid boolean, not 'yes'"),
    (LLAMA, {"attention_bias": 1}, "attention_bias must be a valid boolean, not 1"),
    (LLAMA, {"hidden_size": 96.0}, "hidden_size must be a valid integer, not 96.0"),
    (LLAMA, {"vocab_size": True}, "vocab_size must be a valid integer, not True"),
    (LLAMA, {"num_hidden_layers": 0}, "num_hidden_layers must be greater than 0, not 0"),
    (LLAMA, {"max_position_embeddings": GONE}, "max_position_embeddings is missing, and there is no value to take"),
    (LLAMA, {"max_position_embeddings": 2**40}, "max_position_embeddings must be less than 2147483648"),
    (LLAMA, {"hidden_size": 97, "head_dim": None}, "no head_dim, and hidden_size 97 does not divide into 4 heads"),
    (QWEN3, {"head_dim": None}, "head_dim must be a valid integer, not None"),
    (LLAMA, {"eos_token_id": "2"}, "eos_token_id must be an integer or a list of integers, not '2'"),
    (LLAMA, {"eos_token_id": [2, True]}, r"eos_token_id must be an integer or a list of integers, not \[2, True\]"),
    (LLAMA, {"pad_token_id": 0.5}, "pad_token_id must be an integer or a list of integers, not 0.5"),
    (LLAMA, {"architectures": "LlamaForCausalLM"}, "architectures must be a valid list, not 'LlamaForCausalLM'"),
    (LLAMA, {"architectures": [1]}, "architectures must be a valid string, not 1"),
    (
        LLAMA,
        {"architectures": None, "model_type": "bert"},
        r"architecture \(none\) is not served; served are ChatGLMModel, GlmForCausalLM",
    ),
    (LLAMA, {"model_type": "qwen2"}, "architectures says LlamaForCausalLM, model_type 'qwen2'; expected 'llama'"),
    (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config is not served"),
    (LLAMA, {"sliding_window": 64}, r"a sliding_window \(64\) is not served"),
    (QWEN2, WINDOW, r"a sliding_window \(4\) is not served"),
    (QWEN3, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types 'sliding_attention' is not served"),
    (QWEN3, {"layer_types": ["full_attention"]}, "layer_types has 1 entries for 2 layers"),
    (GPT2, {"add_cross_attention": True}, "add_cross_attention True is not served, only False"),
    (GPT2, {"layer_norm_epsilon": None}, "layer_norm_epsilon must be a valid number, not None"),
]


@pytest.mark.parametrize(("kind", "changes", "expected"), REFUSED)
def test_what_is_refused(changed, kind, changes, expected):
    folder = changed(kind, changes)
    with pytest.raises(ModelError, match=expected) as raised:
        read_model_config(folder)
    assert str(folder / "config.json") in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "said", "generation", "expected"),
    [
        (LLAMA, 5, None, (5,)),
        (LLAMA, [5, 6], None, (5, 6)),
        (LLAMA, None, None, ()),
        (LLAMA, GONE, None, (2,)),  # as LlamaConfig has it
        (QWEN2, GONE, None, ()),
        (LLAMA, 5, {"eos_token_id": [7, 8]}, (7, 8)),
        (LLAMA, 5, {"temperature": 0.6}, (5,)),  # where transformers would never end
        (LLAMA, 5, {"eos_token_id": None}, (5,)),
    ],
)
def test_end_tokens(changed, kind, said, generation, expected, capsys):
    folder = changed(kind, {"eos_token_id": said}, generation)
    assert read_model_config(folder).eos_token_ids == expected
    if generation is None:
        theirs = transformers.AutoConfig.from_pretrained(folder).eos_token_id
        assert expected == (() if theirs is None else tuple(np.atleast_1d(theirs)))
    assert capsys.readouterr().err == ""


def test_tokens_beyond_the_vocabulary_are_dropped(changed, capsys):
    """No output can have them."""
    folder = changed(LLAMA, {"eos_token_id": [2, 320, -1], "pad_token_id": 9999}, {"eos_token_id": [3, 400]})
    assert read_model_config(folder).eos_token_ids == (3,)
    config, generation = folder / "config.json", folder / "generation_config.json"
    assert capsys.readouterr().err.splitlines() == [
        f"mindgen: warning: {config}: eos_token_id 320, -1 is outside the vocabulary of 320, and is ignored",
        f"mindgen: warning: {config}: pad_token_id 9999 is outside the vocabulary of 320, and is ignored",
        f"mindgen: warning: {generation}: eos_token_id 400 is outside the vocabulary of 320, and is ignored",
    ]


def test_types_in_generation_config(changed):
    folder = changed(LLAMA, {}, {"eos_token_id": {"a": 1}})
    with pytest.raises(ModelError, match=r"generation_config.json: eos_token_id must be an integer or a list of"):
        read_model_config(folder)


def test_a_tied_table_under_the_heads_name(changed):
    folder = changed(QWEN2, {})
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    exact = oracle_logits(load_oracle(folder, torch.float32), PROMPT).numpy()
    assert np.abs(Probe(folder, "float32").logits([PROMPT])[0] - exact).max() < 1e-4
