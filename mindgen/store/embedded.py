"""The embedded models: the demo, a tiny Llama with its adapters A1, A2 and A3, and a tiny GPT-2; tools/train_demo.py
and tools/train_demo_gpt2.py trained them into mindgen/demo."""

from pathlib import Path

_HOME = Path(__file__).parents[1] / "demo"
_FOLDERS = {"demo": "model", "gpt2": "gpt2"}


def find_embedded(name: str) -> Path | None:
    """The folder of the embedded model of that name; None if there is none, or the name is that of a model's folder."""
    if name not in _FOLDERS or (Path(name) / "config.json").is_file():
        return None
    return _HOME / _FOLDERS[name]


def demo_folder() -> Path:
    return _HOME / _FOLDERS["demo"]


def adapter_folder() -> Path:
    """adapters/ of the source tree, or the copy that an installed wheel carries."""
    installed = _HOME / "adapters"
    return installed if installed.is_dir() else _HOME.parents[1] / "adapters"
