"""The embedded models: the demo, a tiny Llama with its adapters A1, A2 and A3, and a tiny GPT-2; tools/train_demo.py
and tools/train_demo_gpt2.py trained them."""

from pathlib import Path

NAME = "demo"
_FOLDERS = {NAME: "model", "gpt2": "gpt2"}


def find_model(name: str) -> Path | None:
    """The folder of the embedded model of that name; None if there is none, or the name is that of a model's folder."""
    if name not in _FOLDERS or (Path(name) / "config.json").is_file():
        return None
    return Path(__file__).parent / _FOLDERS[name]


def model_folder() -> Path:
    return Path(__file__).parent / _FOLDERS[NAME]


def adapter_folder() -> Path:
    """adapters/ of the source tree, or the copy that an installed wheel carries."""
    installed = Path(__file__).parent / "adapters"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "adapters"
