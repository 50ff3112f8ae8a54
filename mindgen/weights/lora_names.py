"""What the tools that write adapters call their tensors and modules, translated to Hugging Face's names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from mindgen.weights.architecture import architectures
from mindgen.weights.mindformers_names import FROM_MINDFORMERS, MINDFORMERS_FUSED
from mindgen.weights.tensor_names import EMBEDDING, FUSED, HEAD

_TO_MINDFORMERS = {theirs: ours for ours, theirs in FROM_MINDFORMERS.items()}
_SHORT_NAMES = {ours.rsplit(".", 1)[-1]: theirs.rsplit(".", 1)[-1] for ours, theirs in FROM_MINDFORMERS.items()} | {
    "dense_left": "gate_proj",
    "dense_right": "up_proj",
}  # wq: q_proj, ... and ChatGLM's

_LORA = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<half>[AB])(\.(?!weight$|bias$)[^.]+)?(?P<kind>\.weight|\.bias)?"
)
_MINDFORMERS_LORA = re.compile(r"(?P<module>.+)\.(?:mindpet_delta_|tk_delta_)?lora_(?P<half>[ab])")
_MINDPET_UPPER = re.compile(r"(?P<module>.+)\.(?:mindpet_delta_)lora_(?P<half>[AB])")
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.(?!weight$)[^.]+)?(\.weight)?")
_EXTRA_ROWS = re.compile(r"(?P<module>.+)\.lora_embedding")
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save(\.[^.]+)?\.(?P<kind>weight|bias)")
_BASE = re.compile(r"(?P<module>.+?)(?P<wrapped>\.base_layer)?\.(?P<kind>weight|bias)")
_MAX_KNOWN_NAMES = 100_000
# What MindFormers' training leaves in its checkpoints besides the adapter.
_TRAINING_STATE = re.compile(
    r"(adam_[mv]|moment[12])\..+|global_step|epoch_num|step_num|loss_scale|scale_sense|(current|last)_.*step.*"
)


@cache
def embeddings() -> frozenset[str]:
    """What networks and checkpoints call the embedding."""
    return frozenset({EMBEDDING, *(each.embedding for each in architectures().values())})


@cache
def output_modules() -> tuple[str, ...]:
    """The last parts of the names of embeddings and heads."""
    return tuple(sorted({name.rpartition(".")[2] for name in (*embeddings(), HEAD)}))


@dataclass(frozen=True, slots=True)
class TensorName:
    """What a tensor of an adapter is: its module's Hugging Face name, and its role there.

    Roles: A, B, B.bias, magnitude, extra (rows of new tokens), saved.weight, saved.bias, base.weight, base.bias; and
    training, for what is no part of an adapter.
    """

    module: str
    role: str
    is_embedding: bool = False


def parse_tensor_name(name: str) -> TensorName | None:
    """None for a name that no known tool gives."""
    if _TRAINING_STATE.fullmatch(name):
        return TensorName("", "training")
    bare = name
    while bare.startswith("base_model.model."):
        bare = bare.removeprefix("base_model.model.")
    if match := _EXTRA_ROWS.fullmatch(bare):
        return TensorName(_module(match["module"]), "extra", True)
    if match := _MINDFORMERS_LORA.fullmatch(bare) or _MINDPET_UPPER.fullmatch(bare):
        module = _module(match["module"])
        return TensorName(module, match["half"].upper(), module in embeddings())
    if match := _LORA.fullmatch(bare):
        role = "B.bias" if match["kind"] == ".bias" else match["half"]
        is_embedding = match["embedding"] is not None
        return (
            None
            if role == "B.bias" and match["half"] == "A"
            else TensorName(_module(match["module"]), role, is_embedding)
        )
    if match := _MAGNITUDE.fullmatch(bare):
        return TensorName(_module(match["module"]), "magnitude")
    if match := _SAVED.fullmatch(bare):
        return TensorName(_module(match["module"]), f"saved.{match['kind']}")
    if match := _BASE.fullmatch(bare):
        return TensorName(_module(match["module"]), f"base.{match['kind']}")
    return None


class TensorNames:
    """Parses each name once: the adapters of a model have the same ones."""

    def __init__(self) -> None:
        self._parsed: dict[str, TensorName | None] = {}

    def parse(self, name: str) -> TensorName | None:
        """As parse_tensor_name."""
        if name not in self._parsed:
            if len(self._parsed) == _MAX_KNOWN_NAMES:
                self._parsed.clear()
            self._parsed[name] = parse_tensor_name(name)
        return self._parsed[name]


def interleaved_module(module: str) -> bool:
    """Whether it is one of MindFormers' fused modules (qkv_concat: True)."""
    return module.endswith(MINDFORMERS_FUSED)


def fused_kinds(modules: Iterable[str]) -> frozenset[str]:
    """Which kinds of fused modules there are among these."""
    return frozenset(FUSED.keys() & {module.rpartition(".")[2] for module in modules})


@lru_cache(_MAX_KNOWN_NAMES)
def trained_name(module: str, fused: frozenset[str], architecture: str) -> str:
    """What the model that an adapter was trained on calls a module of the network.

    Args:
        fused: the kinds of fused modules that the adapter has.
        architecture: its name.
    """
    own = architectures()[architecture]
    if module == EMBEDDING:
        return own.embedding
    module = own.their_module(module)
    parent, _, name = module.rpartition(".")
    of_others = {kind for each in architectures().values() for kind in each.fused}
    kinds = own.fused or sorted(fused - of_others)
    return next((f"{parent}.{kind}" for kind in kinds if name in FUSED[kind]), module)


def without_prefix(module: str) -> str:
    """As a model that was saved without its head calls it."""
    prefix = next((each.prefix for each in architectures().values() if module.startswith(each.prefix)), "")
    return module.removeprefix(prefix)


def mindformers_module(module: str) -> str:
    """MindFormers' name of a module."""
    for theirs, ours in _TO_MINDFORMERS.items():
        if module == theirs or module.endswith(f".{theirs}"):
            return module.removesuffix(theirs) + ours
    return module


def huggingface_pattern(text: str) -> str:
    """A target of MindFormers (wq, .*wq|.*wk, attention.wq) in Hugging Face's names; others as they are."""
    text = re.sub(r"(?<![A-Za-z0-9_])attention\b", "self_attn", text)
    text = re.sub(r"(?<![A-Za-z0-9_])feed_forward\b", "mlp", text)
    return re.sub(
        r"(?<![A-Za-z0-9_])(w[qkvo123]|tok_embeddings|dense_left|dense_right)\b",
        lambda match: _SHORT_NAMES[match[1]],
        text,
    )


def _module(name: str) -> str:
    """Adds what some tools leave out: a model that is saved without its head has no prefix."""
    for ours, theirs in FROM_MINDFORMERS.items():
        if name == ours or name.endswith(f".{ours}"):
            name = name.removesuffix(ours) + theirs
            break
    name = name.removesuffix(".base_layer")
    for each in architectures().values():
        name = each.own_module(name)
    whole = (each for each in architectures().values() if name.startswith(each.bare_names))
    return next((each.prefix + name for each in whole), name)
