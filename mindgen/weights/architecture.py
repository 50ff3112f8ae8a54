"""What mindgen knows of a kind of model, as one record: architectures/ has a file for each, found by being there."""

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mindgen.errors import ModelError
from mindgen.parallel.layout import Axis, Shard
from mindgen.system.json_file import read_json_object
from mindgen.system.suggestion import nearest_first
from mindgen.weights import architectures as records
from mindgen.weights.cache_layout import CacheLayout
from mindgen.weights.config_file import CONFIG_FILE, NamesFile, read_record
from mindgen.weights.gguf_names import GgufNames
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.quantization import read_quantization

Tensors = dict[str, MappedTensor]
_USUAL = "LlamaForCausalLM"  # by whose names most others go


def _as_they_are(tensors: Tensors) -> Tensors:
    return tensors


def _as_the_network_has_them(tensors: Tensors, _: ModelConfig) -> Tensors:
    return tensors


def _never(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that differs from one kind of model to another, but for the arithmetic, which is the network's.

    Attributes:
        name: in config.json's architectures.
        other_names: that stand there for the same.
        model_type: as config.json has it.
        network: module and class of models/, like "llama:LlamaForCausalLM".
        read_config: of a config.json, given its path and content.
        cache_layout: what a layer keeps of each token.
        linears: the inputs and outputs of a layer's linears, which adapters can target.
        tensor_shapes: of the tensors that its network asks for, by its names, which `mindgen inspect` needs.
        ties_head: whether the head is the embedding where config.json does not say.
        embedding: what checkpoints call the embedding's module.
        layers: what the names of a layer's modules begin with, before its number.
        bare_names: what names begin with where a model was saved without its head, and so without their prefix.
        other_tables: weights that are no linears, and belong before the layers.
        fused: kinds of modules that checkpoints have as one, and the network as several.
        with_own_names: a checkpoint's tensors, of whatever tool, under Hugging Face's names.
        with_mindformers_names: of those under Hugging Face's names; None where MindFormers has no such models.
        translate: under the names, and in the shapes, that the network of that configuration has them.
        is_stored_by_inputs: whether a checkpoint has the weight of that name (in, out).
        gguf: what files of GGUF call all of it; None where they have no such models.
        own_module, their_module: the network's name of a module that an adapter names, and back.
    """

    name: str
    model_type: str
    network: str
    read_config: Callable[[Path, dict[str, Any]], ModelConfig]
    cache_layout: Callable[[ModelConfig, Shard], CacheLayout]
    linears: Callable[[ModelConfig, Shard], list[tuple[Axis, Axis]]]
    tensor_shapes: Callable[[ModelConfig], dict[str, tuple[int, ...]]]
    other_names: tuple[str, ...] = ()
    ties_head: bool = False
    embedding: str = "model.embed_tokens"
    layers: str = "model.layers."
    bare_names: tuple[str, ...] = ("layers.", "embed_tokens", "norm")
    other_tables: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    with_own_names: Callable[[Tensors], Tensors] = _as_they_are
    with_mindformers_names: Callable[[Tensors], Tensors] | None = None
    translate: Callable[[Tensors, ModelConfig], Tensors] = _as_the_network_has_them
    is_stored_by_inputs: Callable[[str], bool] = _never
    gguf: GgufNames | None = None
    own_module: Callable[[str], str] = str
    their_module: Callable[[str], str] = str

    @property
    def prefix(self) -> str:
        """What all names begin with, but for the head's."""
        return self.layers.partition(".")[0] + "."

    def layer_of(self, name: str) -> int | None:
        """The layer that a tensor belongs to; None for those before and behind the layers."""
        number = name.removeprefix(self.layers).partition(".")[0] if name.startswith(self.layers) else ""
        return int(number) if number.isdigit() else None


@cache
def architectures() -> dict[str, Architecture]:
    """All that are served, by name."""
    modules = [import_module(f"{records.__name__}.{each.name}") for each in pkgutil.iter_modules(records.__path__)]
    return {module.ARCHITECTURE.name: module.ARCHITECTURE for module in modules}


def architectures_of_modules(modules: Iterable[str]) -> list[Architecture]:
    """Those whose modules are called like these, as the network has them; all that there are for those of none."""
    known, names = list(architectures().values()), list(modules)
    alike = [each for each in known if any(name.startswith(each.layers) for name in names)]
    return [each for each in alike if each.layers == alike[0].layers] or known


def architecture_of(folder: Path) -> Architecture:
    """That of a model's folder.

    Raises:
        ModelError: there is no readable config.json, or it names none that is served.
    """
    path = folder / CONFIG_FILE
    return find_architecture(path, read_json_object(path, ModelError))


def find_architecture(path: Path, raw: dict[str, Any]) -> Architecture:
    """The one that config.json names, or else that of its model_type.

    Raises:
        ModelError: it is not served, or the two contradict each other.
    """
    names, known = read_record(NamesFile, path, raw), architectures()
    name = _name(names)
    if name not in known:
        raise ModelError(
            f"{path}: architecture {name} is not served; served are, the nearest first, "
            f"{', '.join(nearest_first(name, known))}"
        )
    if names.model_type not in (None, known[name].model_type):
        raise ModelError(
            f"{path}: architectures says {name}, model_type {names.model_type!r}; expected "
            f"{known[name].model_type!r}: correct the one that is wrong"
        )
    return known[name]


def names_of(folder: Path) -> tuple[Architecture, bool]:
    """An architecture by whose names a model's tensors go, served or not, and whether the head is the embedding.

    Raises:
        ModelError: there is no readable config.json.
    """
    path, known = folder / CONFIG_FILE, architectures()
    names = read_record(NamesFile, path, read_json_object(path, ModelError))
    found = known.get(_name(names), known[_USUAL])
    return found, found.ties_head if names.tie_word_embeddings is None else names.tie_word_embeddings


def _name(names: NamesFile) -> str:
    of_type = [each.name for each in architectures().values() if each.model_type == names.model_type]
    said = (names.architectures or of_type or ["(none)"])[0]
    return next((each.name for each in architectures().values() if said in each.other_names), said)


def read_model_config(folder: Path) -> ModelConfig:
    """The model's shape, from config.json (and the end tokens of generation_config.json).

    Raises:
        ModelError: a field is missing, of the wrong type, or asks for what mindgen does not serve.
    """
    path = folder / CONFIG_FILE
    raw = read_json_object(path, ModelError)
    architecture = find_architecture(path, raw)
    read_quantization(path, raw)
    return architecture.read_config(path, raw)
