"""Rotary position embeddings as config.json describes them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mindgen.errors import ModelError, warn
from mindgen.weights.config_file import ConfigFile, FileRecord, Positive, Size, read_record
from mindgen.weights.model_config import RopeConfig


class RopeFile(FileRecord):
    """The rope settings of a kind that needs no others."""

    rope_theta: Positive


class LinearRopeFile(RopeFile):
    factor: Positive


class Llama3RopeFile(LinearRopeFile):
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Size


class FactorsRopeFile(RopeFile):
    """As the files of GGUF have it that were made of such models."""

    factors: list[Positive]


class RotaryFile(ConfigFile):
    """What a config.json says of them.

    Attributes:
        interleaved: as a RopeConfig has it; only such models may leave a part of each head as it is.
    """

    interleaved: ClassVar[bool] = False
    max_position_embeddings: Size
    rope_theta: Positive = 10000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    original_max_position_embeddings: Size | None = None
    partial_rotary_factor: Positive | None = None


_ROPES: dict[str, type[RopeFile]] = {
    "default": RopeFile,
    "linear": LinearRopeFile,
    "llama3": Llama3RopeFile,
    "factors": FactorsRopeFile,
}


def read_rope(path: Path, file: RotaryFile) -> RopeConfig:
    """Raises ModelError where something is asked for that is not served."""
    # transformers 5 writes rope_parameters; before, rope_theta stood beside rope_scaling.
    section = "rope_scaling" if file.rope_scaling else "rope_parameters"
    said = file.rope_scaling or file.rope_parameters or {}
    if file.rope_scaling and file.rope_parameters and file.rope_scaling != file.rope_parameters:
        warn(f"{path} has rope_scaling and rope_parameters, and they differ: rope_scaling is used")
    kind = said.get("rope_type", said.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPES:
        raise ModelError(f"{path}: rope type {kind!r} is not served; served are {', '.join(_ROPES)}")
    if any(isinstance(value, dict) for value in said.values()):
        raise ModelError(f"{path}: {section} for each kind of layer is not served, only one for all")
    share = said.get("partial_rotary_factor", file.partial_rotary_factor)
    share = 1.0 if share is None else share
    if share != 1 and not file.interleaved:
        raise ModelError(f"{path}: partial_rotary_factor {share!r} is not served, only 1.0")
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise ModelError(f"{path}: partial_rotary_factor must be above 0 and at most 1, not {share!r}")
    return replace(_read_kind(path, file, kind, said, section), rotated_share=share, interleaved=file.interleaved)


def _read_kind(path: Path, file: RotaryFile, kind: str, said: dict[str, Any], section: str) -> RopeConfig:
    settings = {"rope_theta": file.rope_theta, "original_max_position_embeddings": file.max_position_embeddings, **said}
    if file.original_max_position_embeddings is not None:
        settings["original_max_position_embeddings"] = file.original_max_position_embeddings
    rope = read_record(_ROPES[kind], path, settings, f"{section}.")
    if isinstance(rope, Llama3RopeFile):
        if rope.high_freq_factor <= rope.low_freq_factor:
            raise ModelError(
                f"{path}: {section}.high_freq_factor must be above low_freq_factor ({rope.low_freq_factor}), not "
                f"{rope.high_freq_factor}"
            )
        return RopeConfig(
            rope.rope_theta, kind, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
            rope.original_max_position_embeddings,
        )  # fmt: skip
    if isinstance(rope, FactorsRopeFile):
        return RopeConfig(rope.rope_theta, kind, factors=tuple(rope.factors))
    return RopeConfig(rope.rope_theta, kind, rope.factor if isinstance(rope, LinearRopeFile) else 1.0)
