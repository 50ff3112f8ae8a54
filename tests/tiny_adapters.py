"""Random LoRA adapters of different shapes, written by peft."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny_models import load_oracle

_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_ALL = [*_ATTENTION, "gate_proj", "up_proj", "down_proj"]
_GPT2 = ["c_attn", "c_proj", "c_fc"]

CONFIGS = {
    "everything": LoraConfig(r=8, lora_alpha=16, target_modules=_ALL),
    "query-value": LoraConfig(r=16, lora_alpha=4, target_modules=["q_proj", "v_proj"]),
    "pattern": LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=r".*\.(q_proj|down_proj|gate_proj)",
        rank_pattern={"down_proj": 7, r"layers\.0\.self_attn\.q_proj": 2},
        alpha_pattern={"down_proj": 3},
    ),
    "rslora-one-layer": LoraConfig(
        r=20, lora_alpha=9, use_rslora=True, target_modules=["o_proj", "up_proj"], layers_to_transform=[1]
    ),
}
# For GLM, whose gate_up_proj is one module.
GLM_CONFIGS = {
    "everything": LoraConfig(r=8, lora_alpha=16, target_modules=[*_ATTENTION, "gate_up_proj", "down_proj"]),
    "query-value": CONFIGS["query-value"],
    "pattern": LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=r".*\.(q_proj|down_proj|gate_up_proj)",
        rank_pattern={"down_proj": 7, r"layers\.0\.self_attn\.q_proj": 2},
        alpha_pattern={"down_proj": 3},
    ),
    "rslora-one-layer": LoraConfig(
        r=20, lora_alpha=9, use_rslora=True, target_modules=["o_proj", "gate_up_proj"], layers_to_transform=[1]
    ),
}
# For GPT-2, whose c_attn is one module for queries, keys and values, and whose weights are (in, out).
GPT2_CONFIGS = {
    "everything": LoraConfig(r=8, lora_alpha=16, target_modules=_GPT2, fan_in_fan_out=True),
    "query-value": LoraConfig(r=16, lora_alpha=4, target_modules=["c_attn"], fan_in_fan_out=True),
    "pattern": LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=r".*\.(c_attn|mlp\.c_proj)",
        rank_pattern={r"mlp\.c_proj": 7, r"h\.0\.attn\.c_attn": 2},
        alpha_pattern={r"mlp\.c_proj": 3},
        fan_in_fan_out=True,
    ),
    "rslora-one-layer": LoraConfig(
        r=20,
        lora_alpha=9,
        use_rslora=True,
        target_modules=["attn.c_proj", "c_fc"],
        layers_to_transform=[1],
        fan_in_fan_out=True,
    ),
    "dora": LoraConfig(r=8, lora_alpha=16, target_modules=_GPT2, fan_in_fan_out=True, use_dora=True),
    "all-linear": LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", fan_in_fan_out=True),
    "expression": LoraConfig(r=4, target_modules=r".*proj", fan_in_fan_out=True),
    "embedding": LoraConfig(r=4, target_modules=["wte", "c_attn"], fan_in_fan_out=True),
    "dora-embedding": LoraConfig(r=4, target_modules=["wte", "c_fc"], fan_in_fan_out=True, use_dora=True),
    "head": LoraConfig(r=4, target_modules=["lm_head", "c_proj"], layers_to_transform=[1], fan_in_fan_out=True),
    "bias": LoraConfig(r=4, target_modules=_GPT2, fan_in_fan_out=True, bias="lora_only"),
}
# Only a merge serves these.
GPT2_MERGED = {
    "all-biases": LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, bias="all"),
    "saved-head": LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, modules_to_save=["lm_head"]),
    "saved-embedding": LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, modules_to_save=["wte"]),
}


def make_adapter(name: str, model: Path, folder: Path) -> Path:
    """Writes a random adapter for the model into folder/name; returns that folder."""
    torch.manual_seed(len(name))
    oracle = load_oracle(model, torch.float32)
    others = {"gpt2": GPT2_CONFIGS | GPT2_MERGED, "glm": GLM_CONFIGS}
    configs = others.get(oracle.config.model_type, CONFIGS)
    adapted = get_peft_model(oracle, configs[name])
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                parameter.normal_(0.0, 0.1)
            elif parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    adapted.save_pretrained(folder / name)
    return folder / name
