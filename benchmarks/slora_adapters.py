"""Thousands of adapters for a random model, of which few are kept on disk."""

import json
import os
from pathlib import Path

from random_model import make_adapter

from mindgen.adapters.registry import AdapterRegistry

CONTENTS = 8  # files on disk of each rank; scalings of their own make them different adapters
RANKS = {"8": [8], "mixed": [8, 16, 32, 64]}


def register(folder: Path, count: int, ranks: str) -> AdapterRegistry:
    """So many adapters, each with a configuration of its own beside one of the contents."""
    folders = {}
    for number in range(count):
        rank = RANKS[ranks][number % len(RANKS[ranks])]
        content = folder / "contents" / f"rank-{rank}-{number % CONTENTS}"
        make_adapter(content, folder, rank, seed=number % CONTENTS)
        path = folder / "registered" / f"{ranks}-{number}"
        if not (path / "adapter_config.json").is_file():
            path.mkdir(parents=True, exist_ok=True)
            weights = path / "adapter_model.safetensors"
            if not weights.exists():
                os.link(content / weights.name, weights)
            config = json.loads((content / "adapter_config.json").read_text())
            (path / "adapter_config.json").write_text(
                json.dumps({**config, "lora_alpha": config["lora_alpha"] * (1 + number * 1e-6)})
            )
        folders[f"{ranks}-{number}"] = path
    return AdapterRegistry(folders)
