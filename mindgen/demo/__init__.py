"""The embedded demo: a tiny Llama that tools/train_demo.py trained, and its adapters A1, A2 and A3."""

from pathlib import Path

NAME = "demo"


def model_folder() -> Path:
    return Path(__file__).parent / "model"


def adapter_folder() -> Path:
    """adapters/ of the source tree, or the copy that an installed wheel carries."""
    installed = Path(__file__).parent / "adapters"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "adapters"
