"""Strategy files: MindSpore reads ours, we read MindSpore's, and nothing else."""

import json

import mindspore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore.train.node_strategy_pb2 import ParallelStrategyMap

from mindgen.errors import CheckpointError
from mindgen.weights.strategy_file import ParameterStrategy, Strategy, read_strategy, write_strategy

STAGE = {
    "q.weight": ParameterStrategy((2, 2), (0, -1)),
    "o.weight": ParameterStrategy((2, 2), (-1, 0)),
    "norm.weight": ParameterStrategy((2, 2), (-1,)),
    "experts": ParameterStrategy((2, 2), (1, -1, 0)),
}


@pytest.mark.parametrize("name", ["strategy.ckpt", "strategy.json"])
def test_mindspore_reads_what_we_write(tmp_path, name):
    write_strategy(tmp_path / name, Strategy((STAGE,)))
    read = mindspore.build_searched_strategy(str(tmp_path / name))
    assert read.keys() == STAGE.keys()
    for parameter, layouts in read.items():
        assert tuple(layouts.dev_matrix[0].dim) == (2, 2)
        assert tuple(layouts.tensor_map[0].dim) == STAGE[parameter].tensor_map
        assert (layouts.field, layouts.opt_weight_shard_size) == (0, 0)
    assert read_strategy(tmp_path / name) == Strategy((STAGE,))


def test_we_read_what_mindspore_writes(tmp_path):
    content = ParallelStrategyMap()
    content.current_stage = 0
    item = content.parallel_strategy_item.add()
    item.node_name = "MatMul"
    item.parallel_strategys.stage = 0
    item.parallel_strategys.parallel_strategy.add().dim.extend([1, 2])
    for name, each in STAGE.items():
        item = content.parallel_layout_item.add()
        item.param_name = name
        item.parallel_layouts.dev_matrix.add().dim.extend(each.device_matrix)
        item.parallel_layouts.tensor_map.add().dim.extend(each.tensor_map)
        item.parallel_layouts.param_split_shape.add()
        item.parallel_layouts.indices_offset.add()
        item.parallel_layouts.field = 0
        item.parallel_layouts.opt_weight_shard_step = 0
        item.parallel_layouts.opt_weight_shard_size = 0
    (tmp_path / "strategy.ckpt").write_bytes(content.SerializeToString())
    assert read_strategy(tmp_path / "strategy.ckpt") == Strategy((STAGE,))


def test_pipeline_stages_are_files_of_a_folder_or_merged_by_mindspore(tmp_path):
    stages = ({"a": ParameterStrategy((2,), (0, -1))}, {"b": ParameterStrategy((2,), (-1, 0))})
    folder = tmp_path / "stages"
    for stage, parameters in enumerate(stages):
        content = ParallelStrategyMap()
        write_strategy(folder / f"stage_{stage}.ckpt", Strategy((parameters,)))
        content.ParseFromString((folder / f"stage_{stage}.ckpt").read_bytes())
        content.current_stage = content.parallel_strategy_item[0].parallel_strategys.stage = stage
        (folder / f"stage_{stage}.ckpt").write_bytes(content.SerializeToString())
    assert read_strategy(folder) == Strategy(stages)
    mindspore.merge_pipeline_strategys(str(folder), str(tmp_path / "merged.ckpt"))
    assert read_strategy(tmp_path / "merged.ckpt") == Strategy(stages)
    write_strategy(tmp_path / "own.ckpt", Strategy(stages))
    assert read_strategy(tmp_path / "own.ckpt") == Strategy(stages)


def test_an_axis_that_is_split_twice(tmp_path):
    strategy = Strategy(({"q": ParameterStrategy((2, 2), ((1, 0), -1)), "k": ParameterStrategy((2, 2), (1, -1))},))
    for name in ("a.ckpt", "a.json"):
        write_strategy(tmp_path / name, strategy)
        assert read_strategy(tmp_path / name) == strategy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no parallel_layout_item"),
        ({"parallel_layout_item": {}}, "names no parameter"),
        ({"parallel_layout_item": {"w": {"dev_matrix": [2]}}}, "no tensor_map"),
        ({"parallel_layout_item": {"w": {"dev_matrix": [2], "tensor_map": [1]}}}, r"dev_matrix \[2\]"),
        ({"parallel_layout_item": {"w": {"dev_matrix": [0], "tensor_map": [0]}}}, r"dev_matrix \[0\]"),
        (
            {"parallel_layout_item": {"w": {"dev_matrix": [2], "tensor_map": [0], "opt_weight_shard_size": 2}}},
            "optimizer",
        ),
        (
            {"parallel_layout_item": {
                "w": {"dev_matrix": [2], "tensor_map": [0]}, "v": {"dev_matrix": [4], "tensor_map": [0]},
            }},
            r"on \[2, 4\] ranks",
        ),
        ({"current_stage": 1, "parallel_layout_item": {"w": {"dev_matrix": [2], "tensor_map": [0]}}}, r"stages \[1\]"),
    ],
)  # fmt: skip
def test_what_is_no_strategy_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        read_strategy(tmp_path / "a.json")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("strategy") / "a.ckpt"
    write_strategy(path, Strategy((STAGE,)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        read_strategy(path)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_missing_files_are_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the strategy file"):
        read_strategy(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="holds no strategy file"):
        read_strategy(tmp_path)
