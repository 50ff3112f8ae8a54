"""A model as users name it: an embedded one, a folder, a file, one that a package carries, or one of a hub."""

from pathlib import Path

from mindgen.errors import ModelError
from mindgen.store.embedded import find_embedded
from mindgen.store.gguf_folder import gguf_folder
from mindgen.store.hub import is_hub_name, pull_from_hub
from mindgen.store.packaged import PACKAGED, packaged_file
from mindgen.store.torch_folder import torch_folder
from mindgen.text.tokenizer_config import tokenizer_paths
from mindgen.weights.folder import model_folder
from mindgen.weights.formats import gguf, torch_pt


def find_model(name: str | Path) -> Path:
    """The folder of the model; one of a hub is fetched.

    Raises:
        ModelError: there is none of that name, or it cannot be served.
        CheckpointError: it is a damaged file.
    """
    embedded = find_embedded(str(name))
    if embedded is not None:
        return embedded
    path = Path(name)
    if not str(name):
        raise ModelError("a model's name is empty: expected a folder, a file, or a name that `mindgen models` lists")
    if path.exists():
        return _of_path(path)
    if str(name) in PACKAGED:
        file = packaged_file(str(name))
        if not file.is_file():
            raise ModelError(f"{name} is not fetched yet: `mindgen pull {name}` does that")
        return gguf_folder(file)
    if is_hub_name(str(name)):
        return _of_path(pull_from_hub(str(name)))
    return model_folder(path)


def find_tokenizer(name: str | Path) -> Path:
    """The folder of a tokenizer: a model's, or one that has nothing else.

    Raises:
        ModelError, CheckpointError: as of find_model.
    """
    path = Path(name)
    return path if tokenizer_paths(path) else find_model(name)


def _of_path(path: Path) -> Path:
    """Of a folder, or of a file that is a whole model."""
    if path.is_file() and path.suffix == torch_pt.FORMAT.suffix:
        return torch_folder(path)
    if path.is_file() and path.suffix == gguf.FORMAT.suffix:
        return gguf_folder(path)
    if path.is_dir() and not (path / "config.json").is_file():
        models = sorted({gguf.gguf_files(each)[0] for each in path.glob(f"*{gguf.FORMAT.suffix}") if each.is_file()})
        if len(models) > 1:
            listed = ", ".join(each.name for each in models)
            raise ModelError(f"{path} has several models, {listed}: name the file of one")
        if models:
            return gguf_folder(models[0])
    return model_folder(path)
