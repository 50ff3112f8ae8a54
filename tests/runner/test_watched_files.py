"""Nothing is answered from a checkpoint that somebody writes into while it is mapped."""

import shutil

import pytest
from loops import engine_of
from updates import PROMPTS, answers, make_models, tokens

from mindgen import LLM, SamplingParams
from mindgen.cli.main import main
from mindgen.errors import CheckpointError, MindgenError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


def write_into(path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


def test_a_file_that_is_written_into_is_served_no_more(folders, tmp_path):
    own = tmp_path / "model"
    shutil.copytree(folders[0], own)
    llm = LLM(own, block_size=4)
    expected, file = tokens(answers(llm)), own / "model.safetensors"
    shutil.copy(file, tmp_path / "new")
    (tmp_path / "new").rename(file)  # in the place of the file that is served
    assert tokens(answers(llm)) == expected
    llm.close()

    llm = LLM(own, block_size=4)
    write_into(file, (folders[1] / "model.safetensors").read_bytes())
    for _ in range(2):
        with pytest.raises(CheckpointError, match="model.safetensors was written while a model is served from it"):
            llm.generate(PROMPTS, SamplingParams(max_tokens=2))
    assert not engine_of(llm).has_unfinished()
    report = llm.update_weights(folders[0], expect_change=False)
    assert report.missing == [] and tokens(answers(llm)) == expected  # nothing is mapped any more
    llm.close()


def test_sleep_does_not_hide_it(folders, tmp_path):
    own = tmp_path / "model"
    shutil.copytree(folders[0], own)
    llm = LLM(own, block_size=4)
    answers(llm)
    llm.sleep(2)
    write_into(own / "model.safetensors", (folders[1] / "model.safetensors").read_bytes())
    llm.wake_up()
    with pytest.raises(CheckpointError, match="was written while"):
        answers(llm)
    llm.close()


def test_each_rank_looks_at_its_own_file(folders, tmp_path):
    shards = tmp_path / "shards"
    assert main(["shard", str(folders[0]), "--output", str(shards), "--pp", "2"]) == 0
    llm = LLM(folders[0], checkpoint=shards, pipeline_parallel_size=2)
    assert answers(llm)
    file = next((shards / "rank_1").glob("*.safetensors"))
    write_into(file, file.read_bytes())
    with pytest.raises(MindgenError, match=r"rank_1/\S+ was written while a model is served from it"):
        llm.generate(PROMPTS, SamplingParams(max_tokens=2))
    llm.close()
