"""MindSpore's strategy files: how each parameter of a sharded checkpoint lies on the ranks. Read and written here
without MindSpore, as protocol buffers (.ckpt) and as JSON.

ParallelStrategyMap {current_stage = 1; repeated item = 2 (what operators do); repeated ParallelLayoutItem = 3},
ParallelLayoutItem {name = 1; ParallelLayouts = 2}, ParallelLayouts {dev_matrix = 1; tensor_map = 2, one for each axis
where an axis is split along several; param_split_shape = 3; indices_offset = 4; field = 5; opt_weight_shard_step = 6;
opt_weight_shard_size = 7}.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.parallel.layout import AxisMap, TensorLayout, map_layout
from mindgen.system.json_file import read_json_object
from mindgen.system.protobuf import encode_field, read_fields, read_packed, read_text

_MAX_AXES = 8
_MAX_FILE_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class ParameterStrategy:
    """How a parameter lies on the ranks of its stage, in MindSpore's notation; see mindgen.parallel.layout."""

    device_matrix: tuple[int, ...]
    tensor_map: tuple[AxisMap, ...]

    def layout(self, shape: tuple[int, ...]) -> TensorLayout:
        """Of the whole tensor of that shape.

        Raises:
            CheckpointError: it has another number of axes.
        """
        if len(shape) != len(self.tensor_map):
            raise CheckpointError(f"the strategy has {len(self.tensor_map)} axes for a tensor of {shape}")
        return map_layout(shape, self.device_matrix, self.tensor_map)

    def layout_of_slices(self, slice_shape: tuple[int, ...]) -> TensorLayout:
        """Of the whole tensor whose slices have that shape.

        Raises:
            CheckpointError: they have another number of axes.
        """
        counts = self.layout((1,) * len(slice_shape)).strategy
        return self.layout(tuple(size * count for size, count in zip(slice_shape, counts, strict=True)))


# The parameters of a pipeline stage, by name.
StageStrategy: TypeAlias = dict[str, ParameterStrategy]


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a checkpoint lies on the ranks: the first ones hold the first pipeline stage, and so on.

    Raises:
        CheckpointError: the parameters have different numbers of ranks.
    """

    stages: tuple[StageStrategy, ...]

    def __post_init__(self) -> None:
        counts = {int(np.prod(each.device_matrix)) for stage in self.stages for each in stage.values()}
        if len(counts) != 1:
            raise CheckpointError(f"the strategy has parameters on {sorted(counts)} ranks; expected one number")

    @property
    def ranks_per_stage(self) -> int:
        return int(np.prod(next(iter(self.stages[0].values())).device_matrix))

    @property
    def num_ranks(self) -> int:
        return len(self.stages) * self.ranks_per_stage

    def of_rank(self, rank: int) -> StageStrategy:
        return self.stages[rank // self.ranks_per_stage]


def read_strategy(path: Path) -> Strategy:
    """The strategy of a file, or of a folder that has a file for each pipeline stage (or rank).

    Raises:
        CheckpointError: there is none, it is damaged, or it says what is not read here.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in (".ckpt", ".json"))
        if not files:
            raise CheckpointError(f"{path} holds no strategy file (.ckpt or .json)")
    else:
        files = [path]
    stages: dict[int, StageStrategy] = {}
    for file in files:
        for stage, parameters in _read_file(file).items():
            if stages.setdefault(stage, parameters) != parameters:
                raise CheckpointError(f"{file} contradicts the other files of {path} on stage {stage}")
    if sorted(stages) != list(range(len(stages))):
        raise CheckpointError(f"{path} has the pipeline stages {sorted(stages)}; expected all from 0 on")
    return Strategy(tuple(stages[stage] for stage in sorted(stages)))


def write_strategy(path: Path, strategy: Strategy) -> None:
    """Writes a file that MindSpore reads; the names of several stages begin with the stage's number."""
    parameters = {
        name if len(strategy.stages) == 1 else f"{stage}-{name}": each
        for stage, stage_parameters in enumerate(strategy.stages)
        for name, each in stage_parameters.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(_as_json(parameters), indent=1) + "\n", encoding="utf-8")
    else:
        path.write_bytes(_as_protobuf(parameters))


def _read_file(path: Path) -> dict[int, StageStrategy]:
    try:
        if path.suffix == ".json":
            stage, parameters = _read_json(path)
        else:
            stage, parameters = _read_protobuf(path)
    except OSError as error:
        raise CheckpointError(f"cannot read the strategy file {path}: {error.strerror}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path} is no strategy file, or damaged: {error}") from error
    if not parameters:
        raise CheckpointError(
            f"{path} names no parameter: it is no strategy file, or MindSpore wrote it before compiling"
        )
    stages: dict[int, StageStrategy] = {}
    for name, each in parameters.items():
        prefix, dash, rest = name.partition("-")  # as MindSpore merges files
        is_merged = bool(dash) and prefix.isdigit()
        stages.setdefault(int(prefix) if is_merged else stage, {})[rest if is_merged else name] = each
    return stages


def _read_json(path: Path) -> tuple[int, StageStrategy]:
    content = read_json_object(path, CheckpointError)
    items = content.get("parallel_layout_item")
    if not isinstance(items, dict):
        raise CheckpointError("it has no parallel_layout_item")
    parameters = {}
    for name, item in items.items():
        if not isinstance(item, dict):
            raise CheckpointError(f"the entry of {name!r} is not an object")
        if item.get("opt_weight_shard_size"):
            raise CheckpointError(_optimizer_message(name))
        parameters[name] = _strategy(name, item.get("dev_matrix"), item.get("tensor_map"))
    stage = content.get("current_stage", 0)
    if not isinstance(stage, int) or stage < 0:
        raise CheckpointError(f"current_stage is {stage!r}")
    return stage, parameters


def _read_protobuf(path: Path) -> tuple[int, StageStrategy]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise CheckpointError(f"it has {path.stat().st_size} bytes")
    stage, parameters = 0, {}
    for field, value in read_fields(np.frombuffer(path.read_bytes(), np.uint8)):
        if field == 1 and isinstance(value, int):
            stage = value
        elif field == 3 and not isinstance(value, int):
            item = dict(read_fields(value))
            name, layouts = item.get(1), item.get(2)
            if name is None or layouts is None or isinstance(name, int) or isinstance(layouts, int):
                raise CheckpointError("a layout has no name or no content")
            parameters[read_text(name)] = _read_layouts(read_text(name), layouts)
        elif field != 2:
            raise CheckpointError(f"it has an unknown field {field}")
    return stage, parameters


def _read_layouts(name: str, message: np.ndarray) -> ParameterStrategy:
    device_matrix: list[int] = []
    maps: list[list[int]] = []
    for field, value in read_fields(message):
        if field == 1 and not isinstance(value, int):
            device_matrix = _read_dims(value)
        elif field == 2 and not isinstance(value, int):
            maps.append([dim - (1 << 64) if dim >> 63 else dim for dim in _read_dims(value)])
        elif field == 7 and not isinstance(value, int):
            raise CheckpointError(f"{name!r} has a malformed share of the optimizer")
        elif field == 7 and value != 0:
            raise CheckpointError(_optimizer_message(name))
    return _strategy(name, device_matrix, maps[0] if len(maps) == 1 else [each for each in maps if each])


def _read_dims(message: np.ndarray) -> list[int]:
    dims: list[int] = []
    for field, value in read_fields(message):
        if field != 1 or len(dims) > _MAX_AXES:
            raise CheckpointError("its sizes are malformed")
        dims += [value] if isinstance(value, int) else read_packed(value, _MAX_AXES)
    return dims


def _strategy(name: str, device_matrix: Any, tensor_map: Any) -> ParameterStrategy:
    if not isinstance(device_matrix, list) or not isinstance(tensor_map, list):
        raise CheckpointError(f"{name!r} has no dev_matrix or no tensor_map")
    axes = [each if isinstance(each, list) else [each] for each in tensor_map]
    if (
        not 0 < len(device_matrix) <= _MAX_AXES
        or not all(type(count) is int and 0 < count < 1 << 20 for count in device_matrix)
        or not all(type(axis) is int and -1 <= axis < len(device_matrix) for each in axes for axis in each)
        or not all(axes)
        or any(-1 in each for each in axes if len(each) > 1)
    ):
        raise CheckpointError(f"{name!r} has dev_matrix {device_matrix} and tensor_map {tensor_map}")
    return ParameterStrategy(tuple(device_matrix), tuple(each[0] if len(each) == 1 else tuple(each) for each in axes))


def _optimizer_message(name: str) -> str:
    return f"{name!r} is split by the optimizer as well; let MindSpore's transform_checkpoints join such checkpoints"


def _as_json(parameters: StageStrategy) -> dict[str, Any]:
    return {
        "current_stage": 0,
        "parallel_strategy_item": {"mindgen": {"stage": 0, "parallel_strategy": [[1]]}},
        "parallel_layout_item": {
            name: {
                "dev_matrix": list(each.device_matrix),
                "tensor_map": [list(axis) if isinstance(axis, tuple) else axis for axis in each.tensor_map],
                "param_split_shape": [],
                "indices_offset": [],
                "field": 0,
                "opt_weight_shard_step": 0,
                "opt_weight_shard_size": 0,
            }
            for name, each in parameters.items()
        },
    }


def _as_protobuf(parameters: StageStrategy) -> bytes:
    # MindSpore wants an operator's strategy to be there.
    operator = encode_field(1, b"mindgen") + encode_field(2, encode_field(1, 0) + encode_field(2, _dims([1])))
    content = encode_field(1, 0) + encode_field(2, operator)
    for name, each in parameters.items():
        if any(isinstance(axis, tuple) for axis in each.tensor_map):
            maps = [_dims(axis if isinstance(axis, tuple) else [axis]) for axis in each.tensor_map]
        else:
            maps = [_dims([axis for axis in each.tensor_map if isinstance(axis, int)])]
        layouts = encode_field(1, _dims(each.device_matrix)) + b"".join(encode_field(2, axes) for axes in maps)
        layouts += encode_field(3, b"") + encode_field(4, b"")
        layouts += b"".join(encode_field(number, 0) for number in (5, 6, 7))
        content += encode_field(3, encode_field(1, name.encode()) + encode_field(2, layouts))
    return content


def _dims(values: Iterable[int]) -> bytes:
    return b"".join(encode_field(1, value % (1 << 64)) for value in values)  # negative ones in two's complement
