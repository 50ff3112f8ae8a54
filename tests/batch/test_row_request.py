"""What rows ask for, in the types that files have for it."""

import json
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_model import FakeModel
from small_jobs import job

from mindgen.batch.row_request import RowReader, RowRequest, used_columns
from mindgen.batch.source import open_source
from mindgen.sampling_params import SamplingParams

BIASES = pa.map_(pa.int32(), pa.float32())


def requests(tmp_path: Path, path: Path, **options: object) -> list[RowRequest | str | None]:
    """Of each row, or its error."""
    config = job(tmp_path, input=str(path), **options)
    source, model = open_source(str(path)), FakeModel()
    reader = RowReader(config, used_columns(config.columns, source, None), model)  # type: ignore[arg-type]
    (rows,) = source.blocks(100)
    read = reader.read(rows, range(rows.num_rows))
    return [each if isinstance(each, RowRequest) else each[0].error for each in read]


def params(tmp_path: Path, path: Path, **options: object) -> list[SamplingParams]:
    found = []
    for each in requests(tmp_path, path, **options):
        assert isinstance(each, RowRequest), each
        found.append(each.request.params)
    return found


def write_rows(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps({"prompt": "x"} | row) + "\n" for row in rows))
    return path


def test_a_row_may_have_a_logit_bias(tmp_path: Path) -> None:
    """Of text keys in JSON, of pairs in a map, of a struct with null for other rows' tokens."""
    sampling = {"logit_bias": {"5": 100, "7": -1.5}}
    pairs = {"logit_bias": [[5, 100], [7, -1.5]]}  # as a map of a table is written to JSON
    rows = [{"sampling": each} for each in (sampling, json.dumps(sampling), pairs)]
    text = write_rows(tmp_path / "text.jsonl", *rows)
    prompts, value = ["x"], {5: 100.0, 7: -1.5}
    pq.write_table(
        pa.table({
            "prompt": prompts,
            "sampling": pa.array([{"logit_bias": [*value.items()]}], pa.struct([("logit_bias", BIASES)])),
        }),
        tmp_path / "map.parquet",
    )  # fmt: skip
    structs = [{"logit_bias": {"5": 100.0, "7": -1.5, "9": None}}]
    pq.write_table(pa.table({"prompt": prompts, "sampling": structs}), tmp_path / "struct.parquet")
    for path in (text, tmp_path / "map.parquet", tmp_path / "struct.parquet"):
        assert all(each.logit_bias == value for each in params(tmp_path, path)), path


@pytest.mark.parametrize("bias", [[5, 100], "5", {"five": 1}, {"5": "much"}])
def test_what_is_no_logit_bias_is_the_rows_error(tmp_path: Path, bias: object) -> None:
    (error,) = requests(tmp_path, write_rows(tmp_path / "rows.jsonl", {"sampling": {"logit_bias": bias}}))
    assert isinstance(error, str) and "logit_bias" in error


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_seeds_of_some_rows_alone_are_those_of_integers(tmp_path: Path, ending: str) -> None:
    """pandas makes floats of integers beside missing values."""
    path = tmp_path / f"rows.{ending}"
    frame = pandas.DataFrame({"prompt": ["x", "x", "x"], "seed": [7, None, 0]})
    getattr(frame, f"to_{ending}")(path, index=False)
    found = params(tmp_path, path)
    assert found == params(tmp_path, write_rows(tmp_path / "rows.jsonl", {"seed": 7}, {}, {"seed": 0}))
    assert found[0] != found[1]


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_all_seeds_that_a_job_may_have_serve_its_rows(tmp_path: Path, seed: int) -> None:
    path = write_rows(tmp_path / "rows.jsonl", {})
    assert params(tmp_path, path, seed=seed) == params(tmp_path, write_rows(tmp_path / "own.jsonl", {"seed": seed}))


@pytest.mark.parametrize("seed", [2**64, 1.5, -1.0, 2.0**53, "1.5", "-1", "1e3"])
def test_what_is_no_seed_is_the_rows_error(tmp_path: Path, seed: object) -> None:
    (error,) = requests(tmp_path, write_rows(tmp_path / "rows.jsonl", {"seed": seed}))
    assert isinstance(error, str) and "seed must be" in error
