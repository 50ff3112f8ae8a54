"""A Hugging Face model folder: config.json, and the tensors of one or several files."""

from pathlib import Path

from mindgen.errors import CheckpointError, ModelError, warn
from mindgen.system.json_file import read_json_object
from mindgen.weights.config_file import CONFIG_FILE
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.mindformers_fused import separate_fused
from mindgen.weights.quantization import with_unpacked
from mindgen.weights.weight_format import map_file, weight_formats

_ADAPTER_CONFIG = "adapter_config.json"


def model_folder(path: Path) -> Path:
    """The folder itself, after a look whether it is a model's.

    Raises:
        ModelError: there is no such folder, or no config.json in it.
    """
    if path.exists() and not path.is_dir():
        raise ModelError(f"{path} is no folder, and no file that holds a whole model: those are .gguf and .pt")
    if not path.is_dir():
        raise ModelError(
            f"no such model folder: {path} (expected a Hugging Face folder with config.json, a .gguf or .pt file, "
            "`demo`, `gpt2`, or a name that `mindgen models` lists)"
        )
    if (path / _ADAPTER_CONFIG).is_file() and not (path / CONFIG_FILE).is_file():
        raise ModelError(
            f"{path} is an adapter's folder: name the base model, and this one in --adapter_path; `mindgen adapters "
            f"inspect {path}` says what is in it"
        )
    if not (path / CONFIG_FILE).is_file():
        raise ModelError(f"{path} has no config.json, so it is no Hugging Face model folder")
    return path


def map_weights(folder: Path, model: Path | None = None) -> dict[str, MappedTensor]:
    """All tensors of the folder's checkpoint under its own names, mapped; MindFormers' fused ones as their parts.

    Args:
        model: the folder whose config.json counts where this one has none.

    Raises:
        ModelError: there is no checkpoint, its index is wrong, it is quantised in a way that is not served, or nothing
            tells how it is fused.
        CheckpointError: a file is damaged, or fused in another way than the configuration says.
    """
    whole = with_unpacked(_map_files(folder), folder if model is None or (folder / CONFIG_FILE).is_file() else model)
    return separate_fused(folder if model is None else model, whole)


def _map_files(folder: Path) -> dict[str, MappedTensor]:
    checkpoint = _checkpoint(folder)
    if checkpoint.name not in _index_files():
        return map_file(checkpoint)
    weight_map = _read_index(checkpoint)
    shards = {file_name: map_file(folder / file_name) for file_name in sorted(set(weight_map.values()))}
    return {name: _tensor_of(shards[file_name], name, folder / file_name) for name, file_name in weight_map.items()}


def weight_paths(folder: Path) -> list[Path]:
    """The files that map_weights maps; others in the folder do not count.

    Raises:
        ModelError, CheckpointError: as of map_weights, but only an index is read.
    """
    checkpoint = _checkpoint(folder)
    if checkpoint.name not in _index_files():
        return [checkpoint]
    return [folder / file_name for file_name in sorted(set(_read_index(checkpoint).values()))]


def warn_of_two_checkpoints(folder: Path) -> None:
    """Says which of two is used."""
    names = [name for name in _model_files() if (folder / name).is_file()]
    if len(names) > 1:
        warn(f"{folder} has {' and '.join(names)}: {names[0]} is used")


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder has several files of a model, and their index."""
    return any((folder / name).is_file() for name in _index_files())


def _model_files() -> list[str]:
    """What a model's folder may have, the preferred ones first, as transformers takes them."""
    names = [(each.model_file, each.index_file) for each in weight_formats().values()]
    return [name for pair in names for name in pair if name is not None]


def _index_files() -> set[str]:
    return {each.index_file for each in weight_formats().values() if each.index_file is not None}


def _checkpoint(folder: Path) -> Path:
    for name in _model_files():
        if (folder / name).is_file():
            return folder / name
    freely_named = [suffix for suffix, each in weight_formats().items() if each.has_any_name]
    files = sorted(path for suffix in freely_named for path in folder.glob(f"*{suffix}"))
    if len(files) > 1:
        listed = ", ".join(path.name for path in files)
        raise ModelError(
            f"{folder} has several checkpoints, {listed}: call one {weight_formats()[files[0].suffix].model_file}"
        )
    if files:
        return files[0]
    raise ModelError(f"{folder} has no checkpoint: expected {', '.join(_model_files()[:-1])} or {_model_files()[-1]}")


def _read_index(path: Path) -> dict[str, str]:
    weight_map = read_json_object(path, ModelError).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError(f"{path} has no weight_map of tensor names to file names")
    for file_name in weight_map.values():
        if "\0" in file_name:
            raise CheckpointError(f"{path} names {file_name!r}, which no file can be called")
        if Path(file_name).name != file_name:
            raise CheckpointError(f"{path} names {file_name!r}, which is outside the model's folder")
    return weight_map


def read_added_tokens(folder: Path) -> dict[str, int]:
    """The ids of the tokens that the folder's tokenizer adds to its own, by their text.

    Raises:
        ModelError: a file of the tokenizer is damaged.
    """
    tokens: dict[str, int] = {}
    try:
        if (folder / "added_tokens.json").is_file():
            tokens |= read_json_object(folder / "added_tokens.json", ModelError)
        if (folder / "tokenizer_config.json").is_file():
            config = read_json_object(folder / "tokenizer_config.json", ModelError)
            listed = (config.get("added_tokens_decoder") or {}).items()
            tokens |= {token["content"]: int(token_id) for token_id, token in listed}
        if (folder / "tokenizer.json").is_file():
            listed = read_json_object(folder / "tokenizer.json", ModelError).get("added_tokens") or []
            tokens |= {token["content"]: token["id"] for token in listed}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}: the tokenizer's added tokens are malformed: {error!r}") from error
    return tokens


def _tensor_of(shard: dict[str, MappedTensor], name: str, path: Path) -> MappedTensor:
    if name not in shard:
        raise CheckpointError(f"the index promises {name!r} in {path}, but it is not there")
    return shard[name]
