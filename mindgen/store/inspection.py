"""What a file or folder is: a model's, of which format, architecture, tensors and tokenizer; an adapter's or a
tokenizer's; and whether mindgen serves it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TypeVar

from mindgen.adapters.formats.lora_config import CONFIG_FILE as ADAPTER_CONFIG
from mindgen.adapters.formats.peft import read_adapter, weights_path
from mindgen.errors import AdapterError, MindgenError, ModelError, UsageError
from mindgen.store.digest import model_digest, tensors_digest
from mindgen.store.find_model import find_model
from mindgen.text.tokenizer import load_tokenizer
from mindgen.text.tokenizer_config import tokenizer_paths
from mindgen.text.vocabulary_size import check_vocabulary_size
from mindgen.weights.architecture import architecture_of, read_model_config
from mindgen.weights.folder import weight_paths
from mindgen.weights.formats import gguf, torch_pt
from mindgen.weights.formats.gguf_container import TENSOR_TYPES
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_names import tied_by_embedding
from mindgen.weights.tensor_check import find_unknown, refuse_unknown, require_tensors
from mindgen.weights.tensor_names import HEAD
from mindgen.weights.weight_files import find_weights
from mindgen.weights.weight_format import format_of, map_file, weight_formats

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What there is to say; texts for people.

    Attributes:
        problems: why it is not served; none if it is.
    """

    facts: dict[str, str]
    problems: list[str]


def inspect(name: str) -> Inspection:
    """Of a model by whatever name, of a file of tensors, or of the folder of an adapter or a tokenizer.

    Raises:
        MindgenError: it is none of these, or damaged.
    """
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        if (path / ADAPTER_CONFIG).is_file():
            return _of_adapter(path)
        if tokenizer_paths(path) and not any(path.glob(f"*{gguf.FORMAT.suffix}")):
            return _of_tokenizer(path)
    if path.exists() and not path.is_dir() and path.suffix not in weight_formats():
        raise ModelError(f"{path} is no file that mindgen knows: expected one ending in {', '.join(weight_formats())}")
    if path.is_file() and path.suffix in weight_formats() and path.suffix != gguf.FORMAT.suffix:
        return _of_file(path)
    return _of_model(name, find_model(name))


def _of_file(path: Path) -> Inspection:
    """Of a whole model in torch's format, or of a checkpoint without a configuration, like a rank's."""
    problem = f"{path} is one file of a model: name its folder, or pass it as --load_checkpoint"
    if path.name.startswith("adapter_"):
        problem = f"{path} is an adapter's: `mindgen adapters inspect {path.parent}` says what is in it"
    if path.suffix == torch_pt.FORMAT.suffix:
        try:
            return _of_model(str(path), find_model(str(path)))
        except (ModelError, UsageError) as error:
            problem = str(error)
    tensors = map_file(path)
    facts = {"format": format_of(path).name, **_tensor_facts(tensors), "size": _megabytes(path.stat().st_size)}
    facts["digest"] = tensors_digest(tensors)
    return Inspection(facts, [problem])


def _of_adapter(folder: Path) -> Inspection:
    file = weights_path(folder)
    facts = {"format": f"adapter, {format_of(file).name}"}
    try:
        adapter = read_adapter(folder)
    except AdapterError as error:
        return Inspection(facts, [str(error)])
    facts |= {"modules": str(len(adapter.updates)), **_tensor_facts(map_file(file))}
    facts |= {"size": _megabytes(file.stat().st_size), "digest": adapter.digest[:16]}
    facts["more"] = f"mindgen adapters inspect {folder}"
    return Inspection(facts, [])


def _of_tokenizer(folder: Path) -> Inspection:
    tokenizer = load_tokenizer(folder)
    facts = {"format": "tokenizer", "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab_size} tokens"}
    return Inspection(facts, [f"{folder} has a tokenizer alone, and no config.json of a model"])


def _of_model(name: str, folder: Path) -> Inspection:
    problems: list[str] = []

    def attempt(make: Callable[[], _Found]) -> _Found | None:
        try:
            return make()
        except MindgenError as error:
            problems.append(str(error))
            return None

    files = weight_paths(folder)
    weights = find_weights(folder, None, 1)
    tensors = weights.map(0)
    facts = {"path": name, "format": format_of(files[0]).name + (f" ({len(files)} files)" if len(files) > 1 else "")}
    architecture = attempt(lambda: architecture_of(folder))
    if architecture is not None:
        facts["architecture"] = architecture.name
    config = attempt(lambda: read_model_config(folder))
    if config is not None:
        facts["shape"] = (
            f"{config.num_layers} layers, hidden {config.hidden_size}, {config.num_heads} heads, {config.num_kv_heads} "
            f"KV heads, vocabulary {config.vocab_size}, {config.max_position} positions"
        )
    facts |= _tensor_facts(tensors)
    if format_of(files[0]) is gguf.FORMAT:
        types = Counter(TENSOR_TYPES[each.type_id].name for each in gguf.read_model(files[0]).tensors.values())
        facts["dtype"] = ", ".join(f"{kind} {count}" for kind, count in types.most_common())
    facts["size"] = _megabytes(sum(each.stat().st_size for each in files))
    tokenizer = attempt(lambda: load_tokenizer(folder))
    if tokenizer is not None:
        facts["tokenizer"] = f"{tokenizer.kind}, {tokenizer.vocab_size} tokens"
    if tokenizer is not None and config is not None:
        attempt(lambda: check_vocabulary_size(tokenizer, config.vocab_size, name))
    facts["digest"] = model_digest(folder, weights)
    if config is not None:
        attempt(lambda: _check_tensors(folder, config, tensors))
    return Inspection(facts, list(dict.fromkeys(problems)))


def _check_tensors(folder: Path, config: ModelConfig, tensors: dict[str, MappedTensor]) -> None:
    """Raises ModelError, CheckpointError where loading the model would: by the names, shapes and types of tensors."""
    architecture = architecture_of(folder)
    found = architecture.translate(tensors, config)
    tied = config.tie_word_embeddings
    found = tied_by_embedding(found) if tied else found
    has_head = f"{HEAD}.weight" in found  # which counts where it is another one
    shapes = architecture.tensor_shapes(replace(config, tie_word_embeddings=tied and not has_head))
    require_tensors(found, shapes)
    refuse_unknown(architecture.name, find_unknown(found, shapes, tied))


def _tensor_facts(tensors: dict[str, MappedTensor]) -> dict[str, str]:
    elements = sum(prod(tensor.shape) for tensor in tensors.values())
    dtypes = Counter(tensor.kind for tensor in tensors.values())
    return {
        "tensors": f"{len(tensors)}, {elements / 1e6:.1f} M elements",
        "dtype": ", ".join(f"{dtype} {count}" for dtype, count in dtypes.most_common()),
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
