"""Weights in 8-bit floats with scales beside them, as fp8 models of DeepSeek and Qwen have them: unpacked when they are
looked at.

A weight (M, N) in e4m3 has a scale for each block of its rows and columns, those at the edges being smaller; the real
value is weight * scale, although the tensor of scales is called `weight_scale_inv` (README_WEIGHTS.md of DeepSeek-V3).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from mindgen.errors import CheckpointError, ModelError
from mindgen.kernels import dtypes
from mindgen.system.json_file import read_json_object
from mindgen.weights.config_file import CONFIG_FILE, FileRecord, Size, read_record
from mindgen.weights.mapped_tensor import MadeTensor, MappedTensor, Write, packed_tensor

CONFIG_KEY = "quantization_config"
FP8 = "float8_e4m3fn"
_SCALES = ("_scale_inv", "_scale")  # behind the weight's name
_BLOCK_ELEMENTS = 1 << 20  # unpacked at a time


class QuantizationFile(FileRecord):
    """quantization_config of config.json. What was left in more bits is known by its dtype, and activations are not
    quantised here, so that nothing else is needed to read a weight."""

    model_config = ConfigDict(extra="forbid")

    quant_method: Literal["fp8"]
    fmt: Literal["e4m3"] = "e4m3"
    weight_block_size: Annotated[list[Size], Field(min_length=2, max_length=2)] | None = None
    activation_scheme: Literal["dynamic", "static"] = "dynamic"
    scale_fmt: str | None = None
    modules_to_not_convert: list[str] | None = None
    ignored_layers: list[str] | None = None
    dequantize: bool = False


def read_quantization(path: Path, raw: dict[str, Any]) -> QuantizationFile | None:
    """What a config.json says of its weights; None where they are as they are.

    Raises:
        ModelError: they are quantised in a way that is not served.
    """
    if raw.get("compression_config"):
        raise ModelError(f"{path}: compression_config is not served")
    found = raw.get(CONFIG_KEY)
    if not found:
        return None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: {CONFIG_KEY} must hold keys and values, not {found!r}")
    return read_record(QuantizationFile, path, found, f"{CONFIG_KEY}.")


def with_unpacked(tensors: dict[str, MappedTensor], folder: Path) -> dict[str, MappedTensor]:
    """The tensors, those in fp8 as one with their scales, by the config.json of the folder.

    Raises:
        ModelError: it does not say how they are scaled, or in a way that is not served.
        CheckpointError: a scale is missing, or has another shape.
    """
    names = [name for name, tensor in tensors.items() if tensor.dtype == FP8]
    if not names:
        return tensors
    path = folder / CONFIG_FILE
    file = read_quantization(path, read_json_object(path, ModelError)) if path.is_file() else None
    if file is None:
        raise ModelError(
            f"{len(names)} tensors like {names[0]!r} are fp8, and {path} has no {CONFIG_KEY}, which says how they are "
            "scaled: name the folder with the config.json that belongs to them"
        )
    rest = dict(tensors)
    for name in names:
        scale_name = next((name + suffix for suffix in _SCALES if name + suffix in tensors), None)
        if scale_name is None:
            raise CheckpointError(f"{folder}: {name!r} is fp8, and has no {name + _SCALES[0]!r} beside it")
        rest[name] = _packed(name, tensors[name], rest.pop(scale_name), file.weight_block_size)
        if file.activation_scheme == "static":
            rest.pop(name.rpartition(".")[0] + ".input_scale", None)
    return rest


def _packed(name: str, weight: MappedTensor, scale: MappedTensor, block: list[int] | None) -> MadeTensor:
    if len(weight.shape) != 2 or 0 in weight.shape:
        raise CheckpointError(f"{name!r} {weight.shape} is fp8: only matrices are read")
    if scale.dtype not in dtypes.FLOATS:
        raise CheckpointError(f"the scale of {name!r} is {scale.dtype}; read are {', '.join(dtypes.FLOATS)}")
    rows, columns = block or weight.shape
    grid = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    if scale.shape != grid and (block is not None or scale.shape not in ((), (1,))):
        said = f"blocks of {rows} x {columns}" if block else "no weight_block_size, so one scale"
        raise CheckpointError(
            f"the scale of {name!r} {weight.shape} has shape {scale.shape}, expected {grid}: {CONFIG_KEY} says {said}"
        )
    unpack = _unpacker(name, weight.data, scale.as_dtype("float32").reshape(grid), (rows, columns))
    return packed_tensor(FP8, weight.data, weight.shape, unpack, "bfloat16")


def _unpacker(name: str, weight: np.ndarray, scale: np.ndarray, block: tuple[int, int]) -> Write:
    """Makes rows of weight (M, N) * scale (M / block, N / block), multiplied in float32."""
    num_columns = weight.shape[1]
    values_of = _e4m3_values()

    def unpack(first: int, last: int, target: np.ndarray, dtype: str) -> None:
        if not np.isfinite(scale).all():
            raise CheckpointError(f"the scale of {name!r} holds an infinity or NaN")
        step = max(1, _BLOCK_ELEMENTS // num_columns)
        for start in range(first, last, step):
            stop = min(start + step, last)
            factors = scale[np.arange(start, stop) // block[0]]
            values = values_of[weight[start:stop]]
            values *= factors.repeat(block[1], axis=1)[:, :num_columns]
            target[start - first : stop - first] = dtypes.from_float32(values, dtype)

    return unpack


def _e4m3_values() -> np.ndarray:
    """What each byte is in e4m3fn: a sign, 4 bits of exponent with a bias of 7, 3 of the fraction; no infinity, and NaN
    where all bits but the sign are set (arXiv:2209.05433)."""
    bits = np.arange(256)
    exponent, fraction = bits >> 3 & 15, bits & 7
    sizes = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10))
    sizes[(bits & 127) == 127] = np.nan
    return np.where(bits < 128, sizes, -sizes).astype(np.float32)
