"""Generating from a checkpoint that lies on ranks: the same answers as from the model's folder."""

import shutil
from pathlib import Path

import pytest

from mindgen import LLM, SamplingParams
from mindgen.cli.main import main
from mindgen.errors import CheckpointError, ModelError
from mindgen.store import embedded

PROMPT = "An increasing sequence: one,"


@pytest.fixture(scope="module")
def expected() -> str:
    return LLM("demo").generate(PROMPT, SamplingParams(temperature=0, max_tokens=16), "A1")[0].outputs[0].text


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The demo's folder without its weights."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(embedded.demo_folder(), folder, dirs_exist_ok=True)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "two"
    assert main(["shard", "demo", "--tp", "2", "--format", "ckpt", "--output", str(folder)]) == 0
    return folder


def answer(model: Path, checkpoint: Path, **limits) -> str:
    llm = LLM(model, adapters=embedded.adapter_folder(), checkpoint=checkpoint, **limits)
    try:
        return llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=16), "A1")[0].outputs[0].text
    finally:
        llm.close()


@pytest.mark.parametrize("source", ["ckpt", "safetensors"])
def test_whole_in_rank_0(tmp_path, model, expected, source):
    assert main(["shard", "demo", "--format", source, "--output", str(tmp_path / "whole")]) == 0
    assert answer(model, tmp_path / "whole") == expected


def test_a_hugging_face_folder_beside_the_model_s(model, expected):
    assert answer(model, embedded.demo_folder()) == expected


def test_each_rank_loads_its_own(model, sharded, expected):
    assert answer(model, sharded, tensor_parallel_size=2) == expected


@pytest.mark.slow
def test_each_stage_loads_its_own(tmp_path, model, expected):
    assert main(["shard", "demo", "--tp", "2", "--pp", "2", "--output", str(tmp_path / "four")]) == 0
    assert answer(model, tmp_path / "four", tensor_parallel_size=2, pipeline_parallel_size=2) == expected
    with pytest.raises(ModelError, match="no tensor 'model.layers.2.* on this rank: set auto_trans_ckpt"):
        LLM(model, checkpoint=tmp_path / "four", tensor_parallel_size=2)
    assert main(["shard", str(tmp_path / "four"), "--output", str(tmp_path / "whole")]) == 0
    assert answer(model, tmp_path / "whole", pipeline_parallel_size=2) == expected


def test_the_wrong_number_of_ranks_is_refused(tmp_path, model, sharded):
    with pytest.raises(ModelError, match=r"sharded for 2 ranks, but there are 4: set auto_trans_ckpt"):
        LLM(model, checkpoint=sharded, tensor_parallel_size=4)
    with pytest.raises(ModelError, match="set auto_trans_ckpt if it is sharded in another way"):
        LLM(model, checkpoint=sharded)
    with pytest.raises(ModelError, match="no such checkpoint"):
        LLM(model, checkpoint=tmp_path / "none")
    shutil.copytree(sharded / "rank_0", tmp_path / "first/rank_0")
    shutil.copy(sharded / "strategy.ckpt", tmp_path / "first")
    with pytest.raises(ModelError, match=r"sharded by its strategy\.ckpt, and has only rank_0"):
        LLM(model, checkpoint=tmp_path / "first", tensor_parallel_size=2)
    shutil.copytree(sharded / "rank_0", tmp_path / "half/rank_1")
    with pytest.raises(CheckpointError, match="no rank_0"):
        LLM(model, checkpoint=tmp_path / "half")


def test_auto_trans_ckpt_shards_what_is_sharded_otherwise(tmp_path, monkeypatch, capsys, model, sharded, expected):
    monkeypatch.chdir(tmp_path)
    command = [
        "generate",
        "--model",
        str(model),
        "--adapter_path",
        str(embedded.adapter_folder()),
        "--adapter_id",
        "A1",
    ]
    command += [
        "--prompt",
        PROMPT,
        "--max_tokens",
        "16",
        "--load_checkpoint",
        str(sharded),
        "--auto_trans_ckpt",
        "True",
    ]
    assert main(command) == 0
    assert capsys.readouterr().out == PROMPT + expected + "\n"
    assert [each.name for each in Path("output/transform_ckpt").glob("rank_*")] == ["rank_0"]
    before = Path("output/transform_ckpt/rank_0").stat().st_mtime_ns
    assert main(command) == 0
    assert Path("output/transform_ckpt/rank_0").stat().st_mtime_ns == before
    Path("output/transform_ckpt/source.json").unlink()
    assert main(command) == 1 and Path("output/transform_ckpt/rank_0").is_dir()
    assert "auto_trans_ckpt has not made it" in capsys.readouterr().err
    assert main([*command, "--src_strategy_path_or_dir", "none.ckpt"]) == 1
    assert "cannot read the strategy file none.ckpt" in capsys.readouterr().err
