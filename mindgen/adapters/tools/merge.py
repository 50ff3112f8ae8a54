"""Merges an adapter into a Hugging Face model: W + scaling * B A, DoRA, biases, whole modules and new tokens, exactly.

One tensor after the other is computed in float32, by blocks of rows, and written in the base model's dtype.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindgen.adapters.base_model import update_factors
from mindgen.adapters.formats.peft import Adapter
from mindgen.adapters.tools.merge_plan import MergedParameter, plan_merge
from mindgen.errors import AdapterError, ModelError
from mindgen.kernels import dtypes
from mindgen.system.atomic import whole_folder
from mindgen.system.json_file import read_json_object
from mindgen.weights.folder import map_weights, model_folder, warn_of_two_checkpoints
from mindgen.weights.formats.safetensors import write_safetensors
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.quantization import CONFIG_KEY as QUANTIZATION_KEY

_BLOCK_ELEMENTS = 1 << 20
_MIN_SHARD_BYTES = 1 << 26
_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".safetensors.index.json", ".bin.index.json")
_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was written."""

    num_tensors: int
    changed: int
    size: int
    untied: bool


def merge_adapter(model: Path, adapter: Adapter, target: Path) -> MergeReport:
    """Writes the model with the adapter in it into the folder `target`, which must not be there yet.

    Raises:
        ModelError: the model folder is incomplete or damaged.
        AdapterError: the adapter does not fit the model, or `target` is there already.
    """
    if target.exists():
        raise AdapterError(f"{target} is there already; name a new folder")
    config = read_json_object(model_folder(model) / "config.json", ModelError)
    warn_of_two_checkpoints(model)
    tensors = map_weights(model)
    plan = plan_merge(model, adapter, tensors)
    with whole_folder(target) as unfinished:
        _copy_files(model, adapter, unfinished, plan.changes_vocabulary)
        config |= plan.config_changes
        config.pop(QUANTIZATION_KEY, None)  # what was packed is written unpacked
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        size = _write_weights(unfinished, plan.parameters)
    changed = sum(parameter.is_changed for parameter in plan.parameters.values())
    return MergeReport(len(plan.parameters), changed, size, plan.unties)


def _copy_files(model: Path, adapter: Adapter, target: Path, changes_vocabulary: bool) -> None:
    for path in model.iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHT_FILES) and path.name != "lora_adapter.json":
            shutil.copyfile(path, target / path.name)
    if changes_vocabulary:
        for pattern in _TOKENIZER_FILES:
            for path in adapter.folder.glob(pattern):
                shutil.copyfile(path, target / path.name)


def _write_weights(folder: Path, parameters: dict[str, MergedParameter]) -> int:
    """Writes files no larger than the largest tensor (or 64 MB), so that no more is in memory; returns all bytes."""
    sizes = {name: parameter.size() for name, parameter in parameters.items()}
    limit = max(_MIN_SHARD_BYTES, *sizes.values())
    shards: list[list[str]] = [[]]
    for name, size in sizes.items():
        if shards[-1] and sum(sizes[other] for other in shards[-1]) + size > limit:
            shards.append([])
        shards[-1].append(name)
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    names = ["model.safetensors"] if len(shards) == 1 else names
    weight_map: dict[str, str] = {}
    for file_name, shard in zip(names, shards, strict=True):
        tensors = {name: merge_parameter(parameters[name]) for name in shard}
        write_safetensors(folder / file_name, tensors, {"format": "pt"})
        for name in shard:
            parameters[name].base.release()
        weight_map |= dict.fromkeys(shard, file_name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return sum(sizes.values())


def merge_parameter(parameter: MergedParameter) -> MappedTensor:
    """The parameter as it is written; the base's own view if nothing changes it."""
    if not parameter.is_changed:
        return parameter.base
    shape, dtype = parameter.shape, parameter.dtype
    result: np.ndarray = np.empty(shape, dtypes.STORAGE[dtype])
    if len(shape) == 1:
        values = _rows(parameter, 0, shape[0])
        if parameter.addend is not None:
            scaling = np.float32(parameter.addend_scaling)
            values = values + dtypes.to_float32(parameter.addend.data, parameter.addend.dtype) * scaling
        result[:] = dtypes.from_float32(values, dtype)
        return MappedTensor(dtype, result)
    update = parameter.update
    factors = _column_factors(parameter) if update is not None and update.is_embedding and update.magnitude else None
    for first, last, block in _updated_blocks(parameter):
        if factors is not None:
            block = block * factors
        elif update is not None and update.magnitude is not None:
            magnitude = dtypes.to_float32(update.magnitude.data[first:last], update.magnitude.dtype)
            block = block * (magnitude / np.sqrt(np.square(block, dtype=np.float64).sum(1)).astype(np.float32))[:, None]
        result[first:last] = dtypes.from_float32(block, dtype)
    return MappedTensor(dtype, result)


def _updated_blocks(parameter: MergedParameter) -> Iterator[tuple[int, int, np.ndarray]]:
    """W + scaling * B A in float32, block by block of rows: first and last row, and the block."""
    num_rows, num_columns = parameter.shape
    step = max(1, _BLOCK_ELEMENTS // num_columns)
    update = parameter.update
    left, right = (None, None) if update is None else update_factors(update)
    for first in range(0, num_rows, step):
        last = min(first + step, num_rows)
        block = _rows(parameter, first, last)
        if left is not None and right is not None and update is not None:
            block = block + (left[first:last] @ right) * np.float32(update.scaling)
        yield first, last, block


def _rows(parameter: MergedParameter, first: int, last: int) -> np.ndarray:
    """Rows of the base, continued by those of new tokens, in float32."""
    base, extra = parameter.base, parameter.extra_rows
    rows = dtypes.to_float32(base.rows(first, last).data, base.dtype)
    if extra is None or last <= base.shape[0]:
        return rows
    start = max(first - base.shape[0], 0)
    return np.concatenate([rows, dtypes.to_float32(extra.data[start : last - base.shape[0]], extra.dtype)])


def _column_factors(parameter: MergedParameter) -> np.ndarray:
    """DoRA on a table: magnitude over norm for each column."""
    assert parameter.update is not None and parameter.update.magnitude is not None
    squares: np.ndarray = np.zeros(parameter.shape[1], np.float64)
    for _, _, block in _updated_blocks(parameter):
        squares += np.square(block, dtype=np.float64).sum(0)
    magnitude = parameter.update.magnitude
    return dtypes.to_float32(magnitude.data, magnitude.dtype) / np.sqrt(squares).astype(np.float32)
