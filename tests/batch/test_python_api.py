"""Batches from Python: tables of other libraries as input, and answers row by row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_model import FakeModel

from mindgen.batch import BatchConfig, iterate_batch, run_batch
from mindgen.batch.frames import as_files
from mindgen.errors import ConfigError
from mindgen.sampling_params import SamplingParams

ROWS = [{"prompt": f"prompt {row}", "adapter_id": ("A1", None)[row % 2], "id": row} for row in range(25)]
SAMPLED = SamplingParams(temperature=1.0, max_tokens=4)
MAKERS: dict[str, Callable[[], Any]] = {
    "arrow": lambda: pa.Table.from_pylist(ROWS),
    "pandas": lambda: pandas.DataFrame(ROWS),
    "datasets": lambda: datasets.Dataset.from_list([{"prompt": "", "adapter_id": "", "id": -1}, *ROWS]).select(
        range(1, 26)
    ),
}


def config_of(tmp_path: Path, given: Any, **options: Any) -> BatchConfig:
    output = str(tmp_path / "out.parquet")
    return BatchConfig(input=given, output=output, sampling=SAMPLED, n_samples=2, part_rows=10, **options)


@pytest.mark.parametrize("maker", MAKERS)
def test_tables_are_input_like_files(tmp_path: Path, maker: str) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in.parquet")
    expected = BatchConfig(
        input=str(tmp_path / "in.parquet"), output=str(tmp_path / "expected.parquet"), sampling=SAMPLED, n_samples=2
    )
    run_batch(expected, opener=FakeModel())
    config = config_of(tmp_path, MAKERS[maker]())
    run_batch(config, opener=FakeModel())
    assert pq.read_table(config.output).to_pylist() == pq.read_table(expected.output).to_pylist()
    assert not (tmp_path / "out.parquet.job" / "input").exists()


def test_a_job_of_a_table_goes_on(tmp_path: Path) -> None:
    class Stopping(FakeModel):
        def encode(self, text: str) -> list[int]:
            if text == "prompt 20":
                raise KeyboardInterrupt
            return super().encode(text)

    with pytest.raises(KeyboardInterrupt):
        run_batch(config_of(tmp_path, MAKERS["pandas"]()), opener=Stopping())
    summary = run_batch(config_of(tmp_path, MAKERS["pandas"]()), opener=FakeModel())
    assert (summary.in_all.rows, summary.run.rows < 25) == (25, True)


def test_rows_come_one_by_one_with_the_answers_of_a_job(tmp_path: Path) -> None:
    config = config_of(tmp_path, MAKERS["pandas"]())
    run_batch(config, opener=FakeModel())
    expected = pq.read_table(config.output)["generated_text"].to_pylist()
    found = {each.row: each for each in iterate_batch(config, opener=FakeModel())}
    assert [found[row].values for row in range(25)] == ROWS
    assert [answer.text for row in range(25) for answer in found[row].answers] == expected
    rest = {each.row for each in iterate_batch(config, skip=lambda row: row < 20, opener=FakeModel())}
    assert rest == set(range(20, 25))


def test_an_iteration_that_is_left_ends_the_model(tmp_path: Path) -> None:
    model = FakeModel(seconds_per_request=0.01)
    rows = iterate_batch(config_of(tmp_path, MAKERS["arrow"]()), opener=model)
    next(rows)
    rows.close()
    assert model.num_answered < 25


def test_paths_name_files(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in.parquet")
    for given in (tmp_path / "in.parquet", [tmp_path / "in.parquet"]):
        assert run_batch(config_of(tmp_path, given), opener=FakeModel()).in_all.rows == 25


def test_a_dataset_is_written_piece_by_piece(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict({"prompt": [f"prompt {row}" for row in range(40_000)]}).select(
        range(39_999, -1, -1)
    )
    path = as_files(dataset, tmp_path)
    assert pq.read_table(path)["prompt"].to_pylist() == dataset["prompt"][:]
    assert pq.read_metadata(path).num_row_groups == 3


DATASET = datasets.Dataset.from_list(ROWS)
NO_INPUT: dict[str, tuple[Any, str]] = {
    "a number": (5, "must be files, folders or patterns, or a pandas frame"),
    "splits": (
        datasets.DatasetDict({"train": DATASET, "test": DATASET}),
        "the input is a DatasetDict of the splits train, test: give one of these",
    ),
    "a stream": (DATASET.to_iterable_dataset(), "IterableDataset, whose rows are not known: load it without streaming"),
    "mixed types": (pandas.DataFrame({"prompt": [1, "a"]}), "the input is a DataFrame that no file can hold: .*prompt"),
    "equal names": (pandas.DataFrame([["a", "b"]], columns=["prompt", "prompt"]), "no file can hold: Duplicate column"),
    "no type": (pa.table({"prompt": ["a"], "x": pa.array([{}], pa.struct([]))}), "a Table that no file can hold: "),
}


@pytest.mark.parametrize("case", NO_INPUT)
def test_what_is_no_input_is_refused(tmp_path: Path, case: str) -> None:
    given, message = NO_INPUT[case]
    with pytest.raises(ConfigError, match=message) as refusal:
        run_batch(config_of(tmp_path, given), opener=FakeModel())
    assert "\n" not in str(refusal.value)
