"""Jobs with a model without a network: what is in the output, and that nothing of it depends on how the job went."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_model import ADAPTERS, FakeModel
from small_jobs import StoppingModel, job

from mindgen.batch.config import InputColumns, OutputOptions
from mindgen.batch.run import run_batch
from mindgen.errors import BatchError, ConfigError, DataError
from mindgen.sampling_params import SamplingParams


def test_each_row_has_its_samples_in_the_order_of_the_input(tmp_path: Path) -> None:
    config = job(tmp_path, n_samples=3)
    model = FakeModel()
    summary = run_batch(config, opener=model)
    table = pq.read_table(config.output)
    assert table.num_rows == 75
    assert table["id"].type == pa.int16()
    assert table["id"].to_pylist() == [row for row in range(25) for _ in range(3)]
    assert table["sample_id"].to_pylist() == [0, 1, 2] * 25
    assert table["row_id"].to_pylist() == table["id"].to_pylist()
    assert len(set(table["generated_text"].to_pylist())) == 75
    assert table["adapter_digest"].to_pylist() == [ADAPTERS.get(name) for name in table["adapter_id"].to_pylist()]
    assert set(table["model_digest"].to_pylist()) == {model.digest}
    assert table["error"].null_count == 75
    assert table["prompt_tokens"].to_pylist()[-1] == len("prompt 24")
    assert set(table["completion_tokens"].to_pylist()) == {3}
    assert summary.finished
    assert (summary.in_all.rows, summary.in_all.samples) == (25, 75)


def test_responses_are_lists_of_a_rows_samples(tmp_path: Path) -> None:
    rows = job(tmp_path, n_samples=2)
    run_batch(rows, opener=FakeModel())
    listed = job(
        tmp_path, n_samples=2, output=str(tmp_path / "listed.parquet"),
        outputs=OutputOptions(form="responses", token_ids=True),
    )  # fmt: skip
    run_batch(listed, opener=FakeModel())
    table, texts = pq.read_table(listed.output), pq.read_table(rows.output)["generated_text"].to_pylist()
    assert table["responses"].to_pylist() == [texts[at : at + 2] for at in range(0, 50, 2)]
    assert table["finish_reason"].to_pylist() == [["stop", "stop"]] * 25
    assert table["token_ids"].to_pylist() == [[[1, 2, 3]] * 2] * 25


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64}, {"batch_size": 3}], ids=str)
def test_output_does_not_depend_on_how_many_rows_are_in_work(tmp_path: Path, options: dict) -> None:
    expected, config = (
        job(tmp_path, n_samples=2),
        job(tmp_path, n_samples=2, output=str(tmp_path / "b.parquet"), **options),
    )
    run_batch(expected, opener=FakeModel())
    run_batch(config, opener=FakeModel(num_slots=2))
    assert Path(config.output).read_bytes() == Path(expected.output).read_bytes()


def test_a_seed_is_a_function_of_the_sample(tmp_path: Path) -> None:
    """The same prompt in another row, another job, beside others, has the same answers; with another seed, others."""
    config = job(tmp_path, n_samples=2)
    run_batch(config, opener=FakeModel())
    texts = pq.read_table(config.output)["generated_text"].to_pylist()
    pq.write_table(pa.table({"prompt": ["prompt 4"]}), tmp_path / "one.parquet")
    one = job(tmp_path, n_samples=2, input=str(tmp_path / "one.parquet"), output=str(tmp_path / "one_out.parquet"))
    run_batch(one, opener=FakeModel())
    assert pq.read_table(one.output)["generated_text"].to_pylist() == texts[8:10]
    other = job(tmp_path, n_samples=2, input=str(tmp_path / "one.parquet"), output=str(tmp_path / "2.parquet"), seed=1)
    run_batch(other, opener=FakeModel())
    assert not set(pq.read_table(other.output)["generated_text"].to_pylist()) & set(texts)


def test_rows_that_cannot_be_served_have_an_error_and_the_others_an_answer(tmp_path: Path) -> None:
    rows = [
        {"prompt": "fine"},
        {"prompt": None},
        {"prompt": 5},
        {"prompt": ""},
        {"prompt": "x" * 100},
        {"prompt": "fine", "adapter_id": "nobody"},
        {"prompt": "fine", "sampling": {"temperature": -1}},
        {"prompt": "fine", "sampling": {"temprature": 1}},
        {"prompt": "fine", "sampling": {"guided_regex": "a", "guided_json": "{}"}},
        {"prompt": "fine", "seed": "x"},
        {"prompt": "break"},
        {"prompt": [{"role": "user", "content": "chat"}]},
        {"prompt": [1, 2, 3]},
        {"prompt": [{"role": "user"}, 7]},
        {"prompt": "fine", "adapter_id": "A1", "sampling": {"max_tokens": 2}, "seed": 3},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = job(tmp_path, input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.jsonl"))
    summary = run_batch(config, opener=FakeModel())
    lines = [json.loads(line) for line in Path(config.output).read_text().splitlines()]
    assert [{name: line[name] for name in row} for line, row in zip(lines, rows, strict=True)] == rows
    failed = [place for place, line in enumerate(lines) if line["error"] is not None]
    assert failed == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13]
    assert all((lines[place]["generated_text"] is None) == (place in failed) for place in range(len(rows)))
    assert summary.in_all.errors == {"prompt": 4, "too_long": 1, "adapter": 1, "sampling": 4, "request": 1}
    assert "100 tokens, at most 99" in lines[4]["error"]
    assert "did you mean temperature" in lines[7]["error"]


def test_fail_fast_ends_at_the_first_row_that_fails(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": null}\n{"prompt": "b"}\n')
    config = job(tmp_path, input=str(tmp_path / "in.jsonl"), fail_fast=True)
    with pytest.raises(BatchError, match="row 1 has failed, and fail_fast is set: the prompt must be"):
        run_batch(config, opener=FakeModel())
    assert not Path(config.output).exists()
    model = FakeModel()
    with pytest.raises(BatchError, match=r"1 row\(s\) of the job have failed in an earlier run, and fail_fast is set"):
        run_batch(config, opener=model)
    with pytest.raises(BatchError, match="row 1 has failed"):
        run_batch(dataclasses.replace(config, retry_failed=True), opener=FakeModel())
    assert model.num_answered == 0
    summary = run_batch(dataclasses.replace(config, fail_fast=False), opener=FakeModel())
    assert summary.in_all.rows_failed == 1


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 9, 10, 11, 24])
def test_a_job_that_was_ended_goes_on_and_gives_the_same_bytes(tmp_path: Path, after: int) -> None:
    expected = job(tmp_path, n_samples=2, output=str(tmp_path / "expected.parquet"))
    run_batch(expected, opener=FakeModel())
    config = job(tmp_path, n_samples=2)
    with pytest.raises(KeyboardInterrupt):
        run_batch(config, opener=StoppingModel(after))
    model = FakeModel()
    summary = run_batch(config, opener=model)
    assert Path(config.output).read_bytes() == Path(expected.output).read_bytes()
    assert model.num_answered <= 25 - max(after - 4, 0)  # all but those that were in work
    assert (summary.in_all.rows, summary.run.rows) == (25, model.num_answered)


def test_a_second_run_at_the_same_time_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    config = job(tmp_path)

    class Second(FakeModel):
        def open(self) -> FakeModel:
            with pytest.raises(BatchError, match=r"process \d+ of \S+ works at this job"):
                run_batch(config, opener=FakeModel())
            return super().open()

    run_batch(config, opener=Second())
    assert pq.read_table(config.output).num_rows == 25


def test_torn_files_are_reported_and_their_rows_generated_again(tmp_path: Path) -> None:
    expected = job(tmp_path, output=str(tmp_path / "expected.parquet"))
    run_batch(expected, opener=FakeModel())
    config = job(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_batch(config, opener=StoppingModel(24))
    parts = tmp_path / "out.parquet.job" / "parts"
    whole, journal = parts / "00000000.jsonl", parts / "00000002.journal"
    whole.write_bytes(whole.read_bytes()[:-40])
    journal.write_bytes(journal.read_bytes() + b'[{"row":24,"samp')
    lines: list[str] = []
    run_batch(config, watcher=Listener(lines), opener=FakeModel())
    assert any("00000000.jsonl is torn" in line for line in lines)
    assert any("the last 16 bytes are torn" in line for line in lines)
    assert Path(config.output).read_bytes() == Path(expected.output).read_bytes()


class Listener:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def begin(self, snapshot: object) -> None: ...
    def update(self, snapshot: object) -> None: ...
    def end(self, summary: object) -> None: ...

    def say(self, line: str) -> None:
        self._lines.append(line)


def test_retry_failed_runs_the_failed_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "adapter_id": "A3"}\n{"prompt": "c"}\n')
    config = job(tmp_path, input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.jsonl"))
    run_batch(config, opener=FakeModel())
    before = [json.loads(line) for line in Path(config.output).read_text().splitlines()]
    assert before[1]["error"] is not None
    monkeypatch.setitem(ADAPTERS, "A3", "4" * 64)
    model = FakeModel()
    summary = run_batch(dataclasses.replace(config, retry_failed=True), opener=model)
    after = [json.loads(line) for line in Path(config.output).read_text().splitlines()]
    assert model.num_answered == 1
    assert after[1]["error"] is None
    assert (after[0], after[2]) == (before[0], before[2])
    assert summary.in_all.rows_failed == 0


def test_columns_and_names_that_do_not_fit_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column promt \(did you mean prompt\?\)"):
        run_batch(job(tmp_path, columns=InputColumns(prompt="promt")), opener=FakeModel())
    with pytest.raises(ConfigError, match="leave out adapter_id"):
        run_batch(job(tmp_path, adapter_id="A1"), opener=FakeModel())
    run_batch(job(tmp_path), opener=FakeModel())
    again = job(tmp_path, input=str(tmp_path / "out.parquet"), output=str(tmp_path / "again.parquet"))
    with pytest.raises(ConfigError, match="prefix"):
        run_batch(again, opener=FakeModel())
    run_batch(dataclasses.replace(again, outputs=OutputOptions(prefix="second_")), opener=FakeModel())
    table = pq.read_table(again.output)
    assert table["second_generated_text"].to_pylist() == table["generated_text"].to_pylist()


def test_hidden_files_beside_the_output_stay(tmp_path: Path) -> None:
    others = [tmp_path / ".out.parquet.crc", tmp_path / ".out.parquet.12345678"]
    for path in others:
        path.write_text("of another program")
    run_batch(job(tmp_path), opener=FakeModel())
    assert all(path.read_text() == "of another program" for path in others)


def test_cells_of_csv_files_are_texts(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        'prompt,adapter_id,seed,sampling\nprompt 1,base,7,\nprompt 1,A1,,"{""max_tokens"": 2}"\nprompt 1,,,\n'
    )
    (tmp_path / "in.jsonl").write_text(
        '{"prompt": "prompt 1", "seed": 7}\n{"prompt": "prompt 1", "adapter_id": "A1", "sampling": {"max_tokens": 2}}\n'
    )
    texts = []
    for name in ("in.csv", "in.jsonl"):
        config = job(tmp_path, input=str(tmp_path / name), output=str(tmp_path / f"out_of_{name}.jsonl"))
        run_batch(config, opener=FakeModel())
        texts.append([json.loads(line) for line in Path(config.output).read_text().splitlines()])
    assert [row["generated_text"] for row in texts[0][:2]] == [row["generated_text"] for row in texts[1]]
    assert "adapter_id must be a text that is not empty" in texts[0][2]["error"]


def test_a_deadline_has_no_place_in_a_job(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would depend on how fast it runs"):
        job(tmp_path, sampling=SamplingParams(deadline_seconds=1.0))


def test_summary_and_manifest_are_files_of_the_jobs_folder(tmp_path: Path) -> None:
    config = job(tmp_path)
    run_batch(config, opener=FakeModel())
    folder = tmp_path / "out.parquet.job"
    assert msgspec.json.decode((folder / "summary.json").read_bytes())["in_all"]["rows"] == 25
    assert "<html" in (folder / "report.html").read_text()
    assert msgspec.json.decode((folder / "manifest.json").read_bytes())["is_finished"] is True


def test_a_full_disk_ends_the_job_and_loses_nothing(tmp_path: Path) -> None:
    script = Path(__file__).with_name("full_disk_job.py")
    command = ["unshare", "--map-root-user", "--mount", sys.executable, str(script), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    error, kept = result.stdout.splitlines()
    assert "No space left on device" in error
    assert kept == "True True"
