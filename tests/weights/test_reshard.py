"""Checkpoints from placement to placement: against numpy's slices and MindSpore's own tools."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import mindspore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from mindgen.cli.main import main
from mindgen.errors import CheckpointError
from mindgen.kernels.dtypes import from_float32
from mindgen.parallel.layout import Axis, TensorLayout
from mindgen.weights.formats.mindspore_ckpt import map_mindspore_file
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.placement import Placement, strategy_placement, whole_placement
from mindgen.weights.rank_files import map_rank_folder
from mindgen.weights.reshard import Target, transform
from mindgen.weights.sharded_checkpoint import ShardedCheckpoint, open_ranks, open_whole
from mindgen.weights.strategy_file import ParameterStrategy, Strategy, write_strategy

RNG = np.random.default_rng(0)
WHOLE = {
    "q.weight": RNG.standard_normal((16, 8)).astype(np.float32),
    "o.weight": RNG.standard_normal((8, 16)).astype(np.float32),
    "norm.weight": RNG.standard_normal(8).astype(np.float16),
    "experts": from_float32(RNG.standard_normal((4, 8, 16)), "bfloat16"),
}
DTYPES = {"q.weight": "float32", "o.weight": "float32", "norm.weight": "float16", "experts": "bfloat16"}
BY_COLUMNS = {
    "q.weight": ParameterStrategy((2, 2), (0, -1)),
    "o.weight": ParameterStrategy((2, 2), (-1, 0)),
    "norm.weight": ParameterStrategy((2, 2), (-1,)),
    "experts": ParameterStrategy((2, 2), (1, -1, 0)),
}


def whole_checkpoint() -> ShardedCheckpoint:
    return open_whole({name: MappedTensor(DTYPES[name], data) for name, data in WHOLE.items()})


def slices(rank: int) -> dict[str, np.ndarray]:
    """What rank has by BY_COLUMNS, in numpy's words."""
    row, column = divmod(rank, 2)
    return {
        "q.weight": np.split(WHOLE["q.weight"], 2, 0)[column],
        "o.weight": np.split(WHOLE["o.weight"], 2, 1)[column],
        "norm.weight": WHOLE["norm.weight"],
        "experts": np.split(np.split(WHOLE["experts"], 2, 0)[row], 2, 2)[column],
    }


def check_ranks(folder: Path) -> None:
    for rank in range(4):
        tensors = map_rank_folder(folder / f"rank_{rank}")
        for name, expected in slices(rank).items():
            np.testing.assert_array_equal(tensors[name].data, expected)
            assert tensors[name].dtype == DTYPES[name]


def check_whole(folder: Path) -> None:
    tensors = map_rank_folder(folder / "rank_0")
    assert tensors.keys() == WHOLE.keys()
    for name, expected in WHOLE.items():
        np.testing.assert_array_equal(tensors[name].data, expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whole_to_sharded_and_back(tmp_path, suffix, num_processes):
    strategy = Strategy((BY_COLUMNS,))
    placement = strategy_placement(whole_checkpoint().shapes, strategy)
    done = transform(whole_checkpoint, placement, Target(tmp_path / "four", suffix=suffix), num_processes)
    assert (done.num_ranks, done.num_tensors) == (4, 4)
    check_ranks(tmp_path / "four")
    source = partial(open_ranks, tmp_path / "four", strategy)
    back = transform(source, whole_placement(source().shapes), Target(tmp_path / "back", suffix=suffix))
    check_whole(tmp_path / "back")
    assert back.digest == done.digest
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("file_format", ["ckpt", "safetensors"])
def test_mindspore_s_tools_read_ours_and_we_read_theirs(tmp_path, file_format):
    write_strategy(tmp_path / "strategy.ckpt", Strategy((BY_COLUMNS,)))
    strategy = str(tmp_path / "strategy.ckpt")
    command = ["--strategy", strategy, "--format", file_format]
    transform(
        whole_checkpoint, whole_placement(whole_checkpoint().shapes), Target(tmp_path / "w", "p", f".{file_format}")
    )
    assert main(["shard", str(tmp_path / "w"), "--output", str(tmp_path / "ours"), "--prefix", "p", *command]) == 0
    check_ranks(tmp_path / "ours")
    mindspore.transform_checkpoints(
        str(tmp_path / "w"), str(tmp_path / "theirs"), "p", None, strategy, output_format=file_format
    )
    check_ranks(tmp_path / "theirs")
    mindspore.transform_checkpoints(
        str(tmp_path / "ours"), str(tmp_path / "joined"), "p", strategy, None, output_format=file_format
    )
    check_whole(tmp_path / "joined")
    command = ["--source_strategy", strategy, "--format", file_format]
    assert main(["shard", str(tmp_path / "theirs"), "--output", str(tmp_path / "back"), *command]) == 0
    check_whole(tmp_path / "back")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_placement_to_any_other(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("reshard")
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    whole = {"w": np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1, "b": np.float32([7])}

    def source():
        return open_whole({name: MappedTensor("float32", each) for name, each in whole.items()})

    def placement() -> Placement:
        split_axis, count = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(1, 5))
        axes = tuple(Axis(size, (count,), (0,)) if i == split_axis else Axis(size) for i, size in enumerate(shape))
        return Placement(count, ({"w": TensorLayout(count, axes), "b": TensorLayout(count, (Axis(1),))},))

    first, second = placement(), placement()
    digest = transform(source, first, Target(folder / "a")).digest
    opened = partial(open_ranks, folder / "a", first.strategy())
    assert transform(opened, second, Target(folder / "b")).digest == digest
    opened = partial(open_ranks, folder / "b", second.strategy())
    assert transform(opened, whole_placement(opened().shapes), Target(folder / "c")).digest == digest
    np.testing.assert_array_equal(load_file(folder / "c/rank_0/checkpoint_0.safetensors")["w"], whole["w"])


def test_padded_tensors_need_safetensors(tmp_path):
    shapes = {"w": (5, 3)}
    placement = strategy_placement(shapes, Strategy(({"w": ParameterStrategy((2,), (0, -1))},)))
    whole = {"w": MappedTensor("float32", np.ones((5, 3), np.float32))}
    with pytest.raises(CheckpointError, match="write safetensors"):
        transform(lambda: open_whole(whole), placement, Target(tmp_path / "a", suffix=".ckpt"))
    assert not list(tmp_path.iterdir())


def test_pipeline_stages_lie_on_ranks_of_their_own(tmp_path):
    stages = ({"q.weight": BY_COLUMNS["q.weight"]}, {"o.weight": BY_COLUMNS["o.weight"]})
    whole = {name: MappedTensor(DTYPES[name], WHOLE[name]) for name in ("q.weight", "o.weight")}
    placement = strategy_placement(open_whole(whole).shapes, Strategy(stages))
    done = transform(lambda: open_whole(whole), placement, Target(tmp_path / "a", suffix=".ckpt"))
    assert done.num_ranks == 8
    assert [list(map_mindspore_file(tmp_path / f"a/rank_{r}/checkpoint_{r}.ckpt")) for r in (3, 4)] == [
        ["q.weight"], ["o.weight"],
    ]  # fmt: skip
    source = partial(open_ranks, tmp_path / "a", Strategy(stages))
    assert transform(source, whole_placement(source().shapes), Target(tmp_path / "b")).digest == done.digest


@pytest.fixture
def four(tmp_path) -> Path:
    placement = strategy_placement(whole_checkpoint().shapes, Strategy((BY_COLUMNS,)))
    transform(whole_checkpoint, placement, Target(tmp_path / "four"))
    write_strategy(tmp_path / "four/strategy.ckpt", Strategy((BY_COLUMNS,)))
    return tmp_path / "four"


def refusal(capsys, *arguments: object) -> str:
    assert main(["shard", *map(str, arguments)]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("mindgen: error: ") and error.count("\n") == 1
    return error


def test_mistakes_are_one_line_and_leave_nothing(four, capsys):
    target = four.parent / "out"
    assert "leave one out" in refusal(capsys, four, "--output", target, "--tp", 2, "--strategy", "x")
    assert "no such model folder" in refusal(capsys, four.parent / "none", "--output", target)
    assert "is there already" in refusal(capsys, four, "--output", four)
    one = four.parent / "one.ckpt"
    write_strategy(one, Strategy(({"other": ParameterStrategy((2,), (0,))},)))
    assert "names none of the checkpoint's" in refusal(capsys, four, "--output", target, "--strategy", one)
    assert "4 ranks, its strategy 2" in refusal(capsys, four, "--output", target, "--source_strategy", one)
    strategy = four / "strategy.ckpt"
    strategy.rename(four.parent / "moved")
    assert "differ in 'q.weight', and there is no strategy.ckpt" in refusal(capsys, four, "--output", target)
    (four.parent / "moved").rename(strategy)
    file = four / "rank_2/checkpoint_2.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-9])
    assert "truncated" in refusal(capsys, four, "--output", target)
    file.unlink()
    assert "rank_2 has no checkpoint" in refusal(capsys, four, "--output", target)
    (four / "rank_2").rmdir()
    assert "no rank_2" in refusal(capsys, four, "--output", target)
    assert sorted(each.name for each in four.parent.iterdir()) == ["four", "one.ckpt"]


@pytest.mark.parametrize(
    ("shapes", "num_processes", "limit"),
    [
        ({"w": (64, 64)}, 1, 1),
        ({"w": (64, 64)}, 2, 1),
        ({f"w{i}": (2, *[1] * 7) for i in range(200)}, 1, 12),  # so many axes make a strategy larger than the ranks
    ],
)
def test_a_full_disk_leaves_no_half_of_a_checkpoint(tmp_path, shapes, num_processes, limit):
    """A limit on the size of files, in KiB, stands in for the disk."""
    whole = {name: MappedTensor("float32", np.ones(shape, np.float32)) for name, shape in shapes.items()}
    transform(lambda: open_whole(whole), whole_placement(shapes), Target(tmp_path / "big", suffix=".ckpt"))
    stage = {name: ParameterStrategy((2,), (0, *[-1] * (len(shape) - 1))) for name, shape in shapes.items()}
    write_strategy(tmp_path / "s.ckpt", Strategy((stage,)))
    command = f"ulimit -f {limit}; '{sys.executable}' -m mindgen shard big --strategy s.ckpt --output out"
    command += f" --format ckpt --processes {num_processes}"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "File too large" in result.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["big", "s.ckpt"]


def test_memory_is_that_of_a_tensor(tmp_path):
    tensor = np.ones((1024, 4096), np.float32)  # 16 MiB, 24 of them
    whole = {f"w{i}": MappedTensor("float32", tensor) for i in range(24)}
    shapes = {name: (1024, 4096) for name in whole}
    transform(lambda: open_whole(whole), whole_placement(shapes), Target(tmp_path / "whole"))
    write_strategy(tmp_path / "s.ckpt", Strategy(({name: ParameterStrategy((4,), (-1, 0)) for name in whole},)))
    script = (
        "import sys; from resource import RUSAGE_SELF, getrusage; from mindgen.cli.main import main;"
        "before = getrusage(RUSAGE_SELF).ru_maxrss; code = main(sys.argv[1:]);"
        "print((getrusage(RUSAGE_SELF).ru_maxrss - before) // 1024); sys.exit(code)"
    )
    command = ["shard", tmp_path / "whole", "--output", tmp_path / "four", "--strategy", tmp_path / "s.ckpt"]
    result = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.splitlines()[-1]) < 100, "MiB"


def test_the_tool_with_mindformers_flags(four):
    root = Path(__file__).parents[2]
    command = [sys.executable, root / "tools/transform_ckpt.py", "--src_ckpt_strategy", four / "strategy.ckpt"]
    command += ["--src_ckpt_dir", four, "--dst_ckpt_dir", four.parent / "whole", "--prefix", "whole_"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert (four.parent / "whole/rank_0/whole_0.ckpt").is_file()
    check_whole(four.parent / "whole")
