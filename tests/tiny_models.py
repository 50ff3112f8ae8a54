"""Small random models of every served kind, made by transformers; they are the oracle and the checkpoint alike."""

from pathlib import Path

import torch
import transformers

VOCAB_SIZE = 320
_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_GPT2 = transformers.GPT2Config
_LLAMA, _QWEN2, _QWEN3 = transformers.LlamaConfig, transformers.Qwen2Config, transformers.Qwen3Config

# name: (configuration class, heads, KV heads, head size, whatever else differs)
KINDS = {
    "llama-multi-head": (_LLAMA, 4, 4, 24, {}),
    "llama3-grouped-tied": (_LLAMA, 6, 2, 16, {"rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": True}),
    "llama-biased-one-kv-head": (_LLAMA, 7, 1, 8, {"hidden_size": 56, "attention_bias": True, "mlp_bias": True}),
    "qwen2-tied": (_QWEN2, 6, 2, 16, {"tie_word_embeddings": True}),
    "qwen3-untied": (_QWEN3, 6, 3, 32, {"tie_word_embeddings": False}),
    "mistral": (transformers.MistralConfig, 6, 3, 16, {"sliding_window": None}),
    "glm": (transformers.GlmConfig, 6, 2, 16, {"pad_token_id": 0}),
    "gpt2": (_GPT2, 6, 6, 16, {"n_inner": 200}),
    "gpt2-untied": (_GPT2, 4, 4, 24, {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3}),
}


def make_model(
    kind: str, folder: Path, dtype: torch.dtype, max_shard_size: str = "5GB", seed: int = 0, **other_sizes: int
) -> Path:
    """Writes a random model of that kind; its weights are exact in dtype. Returns the folder."""
    config_class, heads, kv_heads, head_size, extra = KINDS[kind]
    sizes = {**_SIZES, "num_attention_heads": heads, "num_key_value_heads": kv_heads, **extra, **other_sizes}
    if config_class not in (_GPT2, _QWEN2):
        sizes["head_dim"] = head_size
    torch.manual_seed(len(kind) + seed)
    model = transformers.AutoModelForCausalLM.from_config(config_class(**sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")) else 0.0
            parameter.normal_(mean, 0.15)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def load_oracle(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@torch.no_grad()
def oracle_logits(model: torch.nn.Module, token_ids: list[int]) -> torch.Tensor:
    """The float32 logits (V,) that follow the tokens."""
    return model(torch.tensor([token_ids])).logits[0, -1].float()
