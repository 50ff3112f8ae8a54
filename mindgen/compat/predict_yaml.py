"""MindFormers' predict_*.yaml as a configuration of ours: what inference needs is read, the rest is named once.

Keys and defaults as in its LlamaConfig, GPT2Config and GenerationConfig.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindgen.errors import ConfigError, ModelError, warn
from mindgen.store.made_folder import made_folder
from mindgen.weights.architecture import find_architecture
from mindgen.weights.mindformers_fused import LAYOUT_KEY, LAYOUTS

_READ = (
    "seed", "run_mode", "use_parallel", "load_checkpoint", "auto_trans_ckpt", "src_strategy_path_or_dir", "adapter_id",
    "predict_data", "parallel_config", "model", "processor", "pretrained_model_dir", "use_legacy",
)  # fmt: skip
_COPIED = (
    "use_parallel",
    "auto_trans_ckpt",
    "load_checkpoint",
    "src_strategy_path_or_dir",
    "adapter_id",
    "predict_data",
)
_SAMPLING = (
    "do_sample",
    "top_k",
    "top_p",
    "temperature",
    "repetition_penalty",
    "max_new_tokens",
    "min_length",
    "num_beams",
)
# What a model_config that does not say it means.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "LlamaConfig": {"do_sample": True, "top_k": 5, "top_p": 1.0, "repetition_penalty": 1.0, "max_decode_length": 1024},
    "GPT2Config": {"do_sample": True, "top_k": 5, "top_p": 1.0, "repetition_penalty": 1.0, "max_decode_length": 1024},
}
_GENERATION_DEFAULTS = {"do_sample": False, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}
_GLM_DEFAULTS: dict[str, Any] = {
    "num_layers": 28, "padded_vocab_size": 65024, "hidden_size": 4096, "ffn_hidden_size": 13696, "kv_channels": 128,
    "num_attention_heads": 32, "seq_length": 2048, "add_qkv_bias": True, "multi_query_attention": True,
    "multi_query_group_num": 2,
}  # fmt: skip
_GLM_KEYS = (
    *_GLM_DEFAULTS, "rope_ratio", "rmsnorm", "apply_residual_connection_post_layernorm", "post_layer_norm",
    "add_bias_linear", "quantization_bit", "pre_seq_len", "use_rearrange_rope", "eos_token_id",
)  # fmt: skip
_SIZES = (
    ("model_parallel", "tensor_parallel_size"),
    ("pipeline_stage", "pipeline_parallel_size"),
    ("data_parallel", "data_parallel_size"),
)
# Of what is called otherwise in a config.json.
_THEIR_NAMES = {
    "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "num_key_value_heads": "n_kv_heads",
    "rope_theta": "theta", "n_embd": "hidden_size", "n_layer": "num_layers", "n_head": "num_heads",
    "layer_norm_epsilon": "layernorm_epsilon",
}  # fmt: skip
_CHECKPOINT = "checkpoint_name_or_path"
_TOKENIZER_FILES = ("vocab_file", "tokenizer_file", "merges_file")


def is_predict_yaml(raw: Mapping[str, Any]) -> bool:
    """Whether that is a configuration of MindFormers."""
    model = raw.get("model")
    return "trainer" in raw or "pretrained_model_dir" in raw or (isinstance(model, dict) and "model_config" in model)


def translate_predict_yaml(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The same as our own sections.

    Raises:
        ConfigError: something that inference needs is missing, of another type, or not served.
    """
    if raw.get("run_mode", "predict") != "predict":
        raise ConfigError(f"run_mode must be 'predict', not {raw['run_mode']!r}")
    model = _NotedSection(_section(_section(raw, "model"), "model_config"))
    kind = model.get("type")
    settings: dict[str, Any] = {name: raw[name] for name in _COPIED if raw.get(name) not in (None, "")}
    if "load_checkpoint" not in settings and _is_path(model.get(_CHECKPOINT)):
        settings["load_checkpoint"] = model[_CHECKPOINT]
    settings["generation"] = _sampling(model, raw.get("seed"))
    settings["engine"] = _limits(model, _section(raw, "parallel_config"), bool(raw.get("use_parallel")))
    settings["model"] = {"path": str(_model_path(path, raw, model, kind))}
    if model.get("compute_dtype") is not None:
        settings["model"]["dtype"] = model["compute_dtype"]
    pet = _NotedSection(_section(model, "pet_config"))
    if pet:
        settings["model"]["pet_config"] = {
            name: pet[name] for name in ("pet_type", "adapter_path") if pet.get(name) is not None
        }
        if pet.get("pet_type") == "lora" and not pet.get("adapter_path"):
            warn(f"{path}: pet_config has no adapter_path, and LoRA in the model's own checkpoint is not served")
    ignored = sorted(key for key in raw if key not in _READ)
    ignored += [
        f"{name}.{key}" for name, each in (("model_config", model), ("pet_config", pet)) for key in each.unread()
    ]
    if ignored:
        warn(f"{path}: of no meaning for inference, and ignored: {', '.join(ignored)}")
    shown = ", ".join(f"{name} {value}" for name, value in settings["generation"].items())
    warn(f"{path}: sampling is {shown}")
    return settings


def check_checkpoint(raw: Mapping[str, Any], load_checkpoint: str | None) -> None:
    """Raises ConfigError where neither such a file nor a flag says where the weights are."""
    if load_checkpoint is None and not raw.get("pretrained_model_dir"):
        named = _section(_section(raw, "model"), "model_config").get(_CHECKPOINT)
        beside = f" ({_CHECKPOINT} {named!r} is no path that exists)" if named else ""
        raise ConfigError(
            f"the YAML names no load_checkpoint{beside}: say there, or by the flag, where the weights are"
        )


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and Path(value).exists()


class _NotedSection(dict[str, Any]):
    """A section that knows which of its keys have been looked at."""

    def __init__(self, section: Mapping[str, Any]) -> None:
        super().__init__(section)
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        return super().get(key, default)

    def unread(self) -> list[str]:
        return sorted(self.keys() - self._read)


def _section(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{key} must hold keys and values, not {found!r}")
    return found


def _sampling(model: Mapping[str, Any], seed: Any) -> dict[str, Any]:
    """A model_config without do_sample samples."""
    said = {name: model.get(name) for name in (*_SAMPLING, "max_length", "max_decode_length")}
    defaults = _DEFAULTS.get(model.get("type", ""), _GENERATION_DEFAULTS)
    known = defaults | {name: value for name, value in said.items() if value is not None}
    options = {name: known[name] for name in _SAMPLING if name in known}
    longest = known.get("max_length", known.get("max_decode_length"))
    if longest is not None:
        options["max_length"] = longest
    if seed is not None:
        options["seed"] = seed
    return options


def _limits(model: Mapping[str, Any], parallel: Mapping[str, Any], use_parallel: bool) -> dict[str, Any]:
    limits = {name: model[name] for name in ("block_size", "num_blocks") if model.get(name) is not None}
    if model.get("seq_length") is not None:
        limits["max_model_len"] = model["seq_length"]
    if use_parallel:
        limits |= {ours: parallel[theirs] for theirs, ours in _SIZES if parallel.get(theirs) is not None}
    return limits


def _model_path(path: Path, raw: Mapping[str, Any], model: Mapping[str, Any], kind: Any) -> Path:
    """The Hugging Face folder that newer ones name, or one that is made of the model_config."""
    folder = raw.get("pretrained_model_dir")
    if folder:
        return Path(folder)
    readers = {"LlamaConfig": _llama_config, "GPT2Config": _gpt2_config, "ChatGLM2Config": _glm_config}
    if kind not in readers:
        raise ConfigError(f"model.model_config.type {kind!r} is not served; served are {', '.join(readers)}")
    config = readers[kind](model)
    _check_config(path, config)
    tokenizer = _section(_section(raw, "processor"), "tokenizer")
    files = [Path(tokenizer[name]) for name in _TOKENIZER_FILES if tokenizer.get(name)]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise ConfigError(
            f"processor.tokenizer: {missing[0] + ' is not there' if missing else 'there is no vocab_file'}: expected "
            "the tokenizer's files, as vocab_file, tokenizer_file or merges_file"
        )
    beside = {each.name: each for file in files for each in file.parent.glob("*token*") if each.is_file()}
    links = beside | {file.name: file for file in files}
    content = json.dumps(config, indent=1)
    return made_folder("mindformers", path, content, links, lambda: {"config.json": content.encode()})


def _check_config(path: Path, config: dict[str, Any]) -> None:
    """Raises ConfigError, in the YAML's words, for what a model cannot have."""
    where = path / "model.model_config"
    try:
        find_architecture(where, config).read_config(where, config)
    except ModelError as error:
        text = str(error).removeprefix(f"{path}/")
        for ours, theirs in _THEIR_NAMES.items():
            text = re.sub(rf"\b{ours}\b", theirs, text)
        raise ConfigError(text) from error


def _number(model: Mapping[str, Any], key: str, default: float) -> Any:
    """1e-5 without a point is a text in YAML; another text is left for the check of the whole."""
    found = model.get(key, default)
    try:
        return float(found)
    except (TypeError, ValueError):
        return found


def _need(model: Mapping[str, Any], key: str) -> Any:
    if model.get(key) is None:
        raise ConfigError(f"model.model_config has no {key}")
    return model[key]


def _llama_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a LlamaConfig; with a bias on q, k and v it is Qwen2's."""
    if model.get("moe_config") is not None or model.get("attn_proj_has_bias"):
        raise ConfigError("model.model_config: moe_config and attn_proj_has_bias are not served")
    if model.get("extend_method") not in (None, "None"):
        raise ConfigError(f"model.model_config: extend_method {model['extend_method']!r} is not served")
    qwen = bool(model.get("qkv_has_bias"))
    config = {
        "architectures": ["Qwen2ForCausalLM" if qwen else "LlamaForCausalLM"],
        "model_type": "qwen2" if qwen else "llama",
        "hidden_size": model.get("hidden_size", 4096),
        "num_hidden_layers": model.get("num_layers", 32),
        "num_attention_heads": model.get("num_heads", 32),
        "num_key_value_heads": model.get("n_kv_heads") or model.get("num_heads", 32),
        "vocab_size": model.get("vocab_size", 32000),
        "rms_norm_eps": _number(model, "rms_norm_eps", 1e-5),
        "rope_theta": _number(model, "theta", 10000.0),
        "max_position_embeddings": model.get("max_position_embedding") or model.get("seq_length", 2048),
        "tie_word_embeddings": bool(model.get("tie_word_embeddings", False)),
        "bos_token_id": model.get("bos_token_id", 1),
        "eos_token_id": model.get("eos_token_id", 2),
    }
    if model.get("qkv_concat"):
        config[LAYOUT_KEY] = _fused_layout(model)
    config["intermediate_size"] = model.get("intermediate_size") or _inner_size(model, config["hidden_size"])
    return config


def _fused_layout(model: Mapping[str, Any]) -> str:
    layout = model.get(LAYOUT_KEY)
    if layout not in LAYOUTS:
        raise ConfigError(
            f"model.model_config has qkv_concat: True, and the checkpoint does not tell in which order the rows lie: "
            f"{LAYOUT_KEY} must be plain (converted before December 2024) or grouped (since then), not {layout!r}"
        )
    return str(layout)


def _inner_size(model: Mapping[str, Any], hidden: int) -> int:
    """Meta's rule: two thirds of four times the width, times a factor, up to a multiple."""
    size, multiple = int(2 * 4 * hidden / 3), model.get("multiple_of", 256)
    if model.get("ffn_dim_multiplier") is not None:
        size = int((model["ffn_dim_multiplier"] + 0.01) * size)
    return -(-size // multiple) * multiple


def _gpt2_config(model: Mapping[str, Any]) -> dict[str, Any]:
    hidden = _need(model, "hidden_size")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": hidden,
        "n_layer": _need(model, "num_layers"),
        "n_head": _need(model, "num_heads"),
        "n_positions": model.get("max_position_embeddings") or _need(model, "seq_length"),
        "n_inner": model.get("intermediate_size") or hidden * model.get("expand_ratio", 4),
        "layer_norm_epsilon": _number(model, "layernorm_epsilon", 1e-5),
        "vocab_size": _need(model, "vocab_size"),
        "tie_word_embeddings": True,
        "eos_token_id": model.get("eos_token_id", 50256),
    }


def _glm_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a ChatGLM2Config, which is THUDM's but for some defaults; its names tell what is fused."""
    return {
        **_GLM_DEFAULTS,
        **{name: model[name] for name in _GLM_KEYS if model.get(name) not in (None, "None")},
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "layernorm_epsilon": _number(model, "layernorm_epsilon", 1e-5),
    }
