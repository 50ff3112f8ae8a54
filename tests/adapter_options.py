"""Adapters of every option of PEFT that mindgen reads."""

import copy
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny_models import load_oracle

_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

SERVED = {
    "all-linear": LoraConfig(r=4, lora_alpha=7, target_modules="all-linear"),
    "excluded": LoraConfig(r=4, target_modules=_ALL, exclude_modules=["layers.0.mlp.up_proj", "k_proj"]),
    "excluded-expression": LoraConfig(r=4, target_modules="all-linear", exclude_modules=r".*\.layers\.1\..*_proj"),
    "layers-pattern": LoraConfig(
        r=3, target_modules=["q_proj", "up_proj"], layers_to_transform=[0], layers_pattern="layers"
    ),
    "full-names": LoraConfig(r=3, target_modules=["model.layers.1.mlp.down_proj", "layers.0.self_attn.q_proj"]),
    "value-expression": LoraConfig(r=4, target_modules=r".*v_proj"),
    "two-expressions": LoraConfig(r=4, target_modules=r".*q_proj|.*v_proj"),
    "two-of-attention": LoraConfig(r=4, target_modules=r".*(q|v)_proj"),
    "up-expression": LoraConfig(r=4, target_modules=r".*up_proj"),
    "without-up": LoraConfig(r=4, target_modules=["gate_proj", "up_proj"], exclude_modules=r".*up_proj"),
    "patterns": LoraConfig(
        r=4,
        lora_alpha=5,
        target_modules=r".*\.(q_proj|down_proj|v_proj)",
        rank_pattern={"self_attn.v_proj": 9, r"layers\.0.*down_proj": 2},
        alpha_pattern={"down_proj": 3, "v_proj": 1},
        use_rslora=True,
    ),
}
# More than LoRA on linears.
EXTENDED = {
    "dora": LoraConfig(r=4, target_modules=_ALL, use_dora=True),
    "dora-embedding": LoraConfig(r=4, target_modules=["embed_tokens", "v_proj"], use_dora=True),
    "dora-head": LoraConfig(r=11, lora_alpha=20, use_rslora=True, target_modules=["lm_head", "k_proj"], use_dora=True),
    "dora-bias": LoraConfig(r=4, target_modules=["q_proj", "up_proj"], use_dora=True, bias="all"),
    "bias-lora-only": LoraConfig(r=4, target_modules=["q_proj", "up_proj"], bias="lora_only"),
    "bias-all": LoraConfig(r=4, target_modules=["k_proj"], bias="all"),
    "embedding-and-head": LoraConfig(r=4, lora_alpha=3, target_modules=["embed_tokens", "lm_head", "q_proj"]),
    "embedding-tied": LoraConfig(r=4, target_modules=["embed_tokens", "o_proj"], ensure_weight_tying=True),
    "one-layer-and-head": LoraConfig(r=4, target_modules=["q_proj", "lm_head"], layers_to_transform=[1]),
    "lora-bias": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_bias=True),
}
# Only a merge serves these.
MERGED = {
    "modules-to-save": LoraConfig(r=4, target_modules=["o_proj"], modules_to_save=["lm_head", "norm"]),
    "saved-embedding": LoraConfig(r=4, target_modules=["o_proj"], modules_to_save=["embed_tokens"]),
}


def make_option(name: str, model: Path, folder: Path) -> Path:
    """Writes a random adapter of that option for the model; all that can be trained is random. Returns the folder."""
    config = copy.deepcopy({**SERVED, **EXTENDED, **MERGED}[name])  # peft writes into it
    torch.manual_seed(len(name))
    adapted = get_peft_model(load_oracle(model, torch.float32), config)
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "magnitude" in parameter_name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif "lora_" in parameter_name:
                parameter.normal_(0.0, 0.1)
            elif parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    adapted.save_pretrained(folder / name)
    return folder / name
