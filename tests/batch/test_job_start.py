"""A job that is there already: what is refused, what goes on, and what is begun again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_model import ADAPTERS, FakeModel
from small_jobs import StoppingModel, job, write_input

from mindgen.batch.config import BatchConfig, InputColumns, OutputOptions, PromptOptions
from mindgen.batch.iterate import iterate_batch
from mindgen.batch.run import run_batch
from mindgen.errors import BatchError, ConfigError, MindgenError
from mindgen.sampling_params import SamplingParams

OVERWRITE = OutputOptions(overwrite=True)


def test_a_finished_job_is_not_done_again(tmp_path: Path) -> None:
    config, model = job(tmp_path), FakeModel()
    first = run_batch(config, opener=model)
    num_answered = model.num_answered
    assert run_batch(config, opener=model).in_all == first.in_all
    assert model.num_answered == num_answered
    assert not (tmp_path / "out.parquet.job" / "parts").exists()


CHANGES = {
    "sampling.temperature was 1.0, now 0.5": {"sampling": SamplingParams(temperature=0.5, max_tokens=4)},
    "n_samples was 1, now 2": {"n_samples": 2},
    "seed was 0, now 7": {"seed": 7},
    'prompts.truncation was "error", now "left"': {"prompts": PromptOptions(truncation="left")},
    'columns.adapter_id was "adapter_id", now null': {"columns": InputColumns(adapter_id=None)},
    "outputs.token_ids was false, now true": {"outputs": OutputOptions(token_ids=True)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_key_is_refused_by_name(tmp_path: Path, change: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path), opener=StoppingModel(12))
    with pytest.raises(BatchError) as error:
        run_batch(job(tmp_path, **CHANGES[change]), opener=FakeModel())
    assert change in str(error.value)
    run_batch(job(tmp_path, batch_size=2), opener=FakeModel())


def test_a_changed_model_adapter_or_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path), opener=StoppingModel(12))
    with pytest.raises(BatchError, match='model was "f'):
        run_batch(job(tmp_path), opener=FakeModel(digest="e" * 64))
    with monkeypatch.context() as context:
        context.setitem(ADAPTERS, "A1", "3" * 64)
        with pytest.raises(BatchError, match="another adapter A1"):
            run_batch(job(tmp_path), opener=FakeModel())
    write_input(tmp_path / "in.parquet", 24)
    with pytest.raises(BatchError, match="the input: .*in.parquet has changed"):
        run_batch(job(tmp_path), opener=FakeModel())


def test_an_output_that_is_there_is_not_lost(tmp_path: Path) -> None:
    config = job(tmp_path)
    Path(config.output).write_text("something")
    with pytest.raises(BatchError, match="is there already"):
        run_batch(config, opener=FakeModel())
    assert Path(config.output).read_text() == "something"
    run_batch(job(tmp_path, outputs=OutputOptions(overwrite=True)), opener=FakeModel())
    assert pq.read_table(config.output).num_rows == 25


def test_a_finished_job_whose_adapter_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_batch(job(tmp_path), opener=FakeModel())
    monkeypatch.setitem(ADAPTERS, "A2", "3" * 64)
    with pytest.raises(BatchError, match="another adapter A2: its digest was 2{64}, now 3{64}"):
        run_batch(job(tmp_path), opener=FakeModel())


def test_an_input_that_has_changed_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    """Of a finished job, and of one that is not, before anything is generated."""
    rows = [f"prompt {row}".ljust(99) for row in range(20_000)]
    (tmp_path / "in.txt").write_text("\n".join(rows))
    finished = job(tmp_path, input=str(tmp_path / "in.txt"), part_rows=5000)
    ended = job(tmp_path, input=str(tmp_path / "in.txt"), output=str(tmp_path / "ended.parquet"))
    run_batch(finished, opener=FakeModel())
    with pytest.raises(KeyboardInterrupt):
        run_batch(ended, opener=StoppingModel(25))
    rows[9_900] = "another".ljust(99)
    (tmp_path / "in.txt").write_text("\n".join(rows))
    for config in (finished, ended):
        model = FakeModel()
        with pytest.raises(BatchError, match=r"the input: \S+in.txt has changed. Name another output"):
            run_batch(config, opener=model)
        assert model.num_answered == 0


def test_where_the_input_is_makes_no_difference(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path), opener=StoppingModel(12))
    (tmp_path / "in.parquet").rename(tmp_path / "moved.parquet")
    assert run_batch(job(tmp_path, input=str(tmp_path / "moved.parquet")), opener=FakeModel()).run.rows < 25


def test_files_that_come_or_go_are_named(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(f"prompt {name}\n" * 20)
    config = job(tmp_path, input=[str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    with pytest.raises(KeyboardInterrupt):
        run_batch(config, opener=StoppingModel(12))
    with pytest.raises(BatchError, match=r"a.txt is not of it any more, \S+c.txt is new, \S+d.txt is new. Name"):
        run_batch(job(tmp_path, input=[str(tmp_path / f"{name}.txt") for name in "bcd"]), opener=FakeModel())


@pytest.mark.parametrize("retry_failed", [False, True])
def test_an_output_that_somebody_else_has_written_since_is_refused(tmp_path: Path, retry_failed: bool) -> None:
    config, output = job(tmp_path), tmp_path / "out.parquet"
    run_batch(config, opener=FakeModel())
    written = output.read_bytes()
    output.write_bytes(written[:-1] + b"x")
    with pytest.raises(BatchError, match="out.parquet is not what this job has written there"):
        run_batch(job(tmp_path, retry_failed=retry_failed), opener=FakeModel())
    output.write_text("hello")
    with pytest.raises(BatchError, match=f"it was {len(written)} bytes of digest .*, now 5 of"):
        run_batch(job(tmp_path, retry_failed=retry_failed), opener=FakeModel())
    assert output.read_text() == "hello"
    run_batch(job(tmp_path, outputs=OVERWRITE), opener=FakeModel())
    assert pq.read_table(output).num_rows == 25


def test_overwrite_begins_again_what_another_command_has_not_ended(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path), opener=StoppingModel(20))
    assert run_batch(job(tmp_path, outputs=OVERWRITE), opener=FakeModel()).run.rows == 25


def test_what_overwrite_has_begun_goes_on_with_the_same_command(tmp_path: Path) -> None:
    run_batch(job(tmp_path), opener=FakeModel())
    before = (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path, outputs=OVERWRITE), opener=StoppingModel(20))
    assert 0 < run_batch(job(tmp_path, outputs=OVERWRITE), opener=FakeModel()).run.rows < 25
    assert (tmp_path / "out.parquet").read_bytes() == before
    assert run_batch(job(tmp_path, outputs=OVERWRITE), opener=FakeModel()).run.rows == 25


def test_overwrite_begins_again_what_it_has_finished_though_failed_rows_are_in_work_again(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n\nbreak\n" * 5)
    config = job(tmp_path, input=str(tmp_path / "in.txt"), outputs=OVERWRITE)
    run_batch(config, opener=FakeModel())
    with pytest.raises(KeyboardInterrupt):
        run_batch(replace(config, outputs=OutputOptions(), retry_failed=True), opener=StoppingModel(1))
    assert run_batch(config, opener=FakeModel()).run.rows == 15


@pytest.mark.parametrize("after", [5, 20])
def test_overwrite_begins_again_when_an_adapter_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """One that has answered in a journal, or in a part that is whole."""
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path, outputs=OVERWRITE), opener=StoppingModel(after))
    monkeypatch.setitem(ADAPTERS, "A1", "3" * 64)
    with pytest.raises(BatchError, match="or begin again with overwrite"):
        run_batch(job(tmp_path), opener=FakeModel())
    assert run_batch(job(tmp_path, outputs=OVERWRITE), opener=FakeModel()).run.rows == 25


def test_overwrite_begins_again_where_the_manifest_is_damaged(tmp_path: Path) -> None:
    run_batch(job(tmp_path), opener=FakeModel())
    (tmp_path / "out.parquet.job" / "manifest.json").write_text("{")
    with pytest.raises(BatchError, match="is damaged"):
        run_batch(job(tmp_path), opener=FakeModel())
    assert run_batch(job(tmp_path, outputs=OVERWRITE), opener=FakeModel()).run.rows == 25


@pytest.mark.parametrize("link", [None, Path.symlink_to, Path.hardlink_to])
def test_an_output_that_is_the_input_is_refused(tmp_path: Path, link: Callable[[Path, Path], None] | None) -> None:
    prompts = tmp_path / "in.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    output = prompts if link is None else tmp_path / "out.jsonl"
    if link is not None:
        link(output, prompts)
    with pytest.raises(ConfigError, match=r"is the input \S+in.jsonl itself: name another output"):
        run_batch(job(tmp_path, input=str(prompts), output=str(output), outputs=OVERWRITE), opener=FakeModel())
    assert prompts.read_text() == '{"prompt": "a"}\n'


@pytest.mark.parametrize("pattern", ["", "*.jsonl", "**/*.jsonl"])
def test_folders_and_patterns_do_not_mean_the_jobs_own_files(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": null}\n')
    config = job(tmp_path, input=str(folder / pattern), output=str(folder / "out.jsonl"))
    run_batch(config, opener=FakeModel())
    assert list((folder / "out.jsonl.job").glob("parts/*.jsonl"))
    assert run_batch(config, opener=FakeModel()).in_all.rows == 2
    assert sum(1 for _ in iterate_batch(config, opener=FakeModel())) == 2


SAME_ANSWERS = {
    "part_rows": {"part_rows": 3},
    "form": {"outputs": OutputOptions(form="responses", prefix="new_")},
    "overwrite": {"outputs": OutputOptions(form="responses", overwrite=True), "part_rows": 4},
}


@pytest.mark.parametrize("change", SAME_ANSWERS)
def test_what_changes_no_answer_may_change_while_a_job_is_not_finished(tmp_path: Path, change: str) -> None:
    options = SAME_ANSWERS[change]
    expected = job(tmp_path, n_samples=2, output=str(tmp_path / "expected.parquet"), **options)
    run_batch(expected, opener=FakeModel())
    begun = {"outputs": OVERWRITE} if change == "overwrite" else {}
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path, n_samples=2, **begun), opener=StoppingModel(20))
    config = job(tmp_path, n_samples=2, **options)
    assert 0 < run_batch(config, opener=FakeModel()).run.rows < 25
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    assert run_batch(job(tmp_path, n_samples=2, **options | {"part_rows": 7}), opener=FakeModel()).finished


def test_a_finished_output_is_that_of_its_own_form(tmp_path: Path) -> None:
    run_batch(job(tmp_path), opener=FakeModel())
    with pytest.raises(BatchError, match='outputs.form was "generated_text", now "responses"'):
        run_batch(job(tmp_path, outputs=OutputOptions(form="responses")), opener=FakeModel())
    assert run_batch(job(tmp_path, part_rows=3), opener=FakeModel()).finished


def refused(tmp_path: Path) -> dict[str, BatchConfig]:
    (tmp_path / "there.parquet").write_text("something")
    new = tmp_path / "new" / "folder"
    return {
        "input": job(tmp_path, input=str(tmp_path / "nowhere.parquet"), output=str(new / "out.parquet")),
        "columns": job(tmp_path, columns=InputColumns(prompt="text"), output=str(new / "out.parquet")),
        "ending": job(tmp_path, output=str(new / "out.exe")),
        "output": job(tmp_path, output=str(tmp_path / "there.parquet")),
        "table": job(tmp_path, input=pa.table({"text": ["a"]}), output=str(new / "out.parquet")),
    }


@pytest.mark.parametrize("case", ["input", "columns", "ending", "output", "table"])
def test_what_is_refused_leaves_no_folder_behind(tmp_path: Path, case: str) -> None:
    config = refused(tmp_path)[case]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MindgenError):
        run_batch(config, opener=FakeModel())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_job_that_is_there_outlives_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_batch(job(tmp_path), opener=StoppingModel(20))
    with pytest.raises(MindgenError):
        run_batch(job(tmp_path, input=str(tmp_path / "nowhere.parquet")), opener=FakeModel())
    assert 0 < run_batch(job(tmp_path), opener=FakeModel()).run.rows < 25
