"""A good adapter, for others to damage."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RANK, SIZE = 4, 12
NAMES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "qv"]
MODULES = {name: (SIZE, SIZE) for name in NAMES}
CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none"}


def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {"A": (RANK, SIZE), "B": (SIZE, RANK)}
    return {
        f"base_model.model.{module}.lora_{half}.weight": generator.standard_normal(shape, np.float32)
        for module in NAMES
        for half, shape in shapes.items()
    }


def write_good(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    save_file(tensors(), folder / "adapter_model.safetensors")
