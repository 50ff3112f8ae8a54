"""Random LoRA adapters of different shapes, written by peft."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny_models import load_oracle

_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_ALL = [*_ATTENTION, "gate_proj", "up_proj", "down_proj"]

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


def make_adapter(name: str, model: Path, folder: Path) -> Path:
    """Writes a random adapter for the model into folder/name; returns that folder."""
    torch.manual_seed(len(name))
    adapted = get_peft_model(load_oracle(model, torch.float32), CONFIGS[name])
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                parameter.normal_(0.0, 0.1)
    adapted.save_pretrained(folder / name)
    return folder / name
