"""Rows split among files, and joined again."""

import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mindgen.batch.rows_copy import merge_rows, split_rows
from mindgen.batch.source import open_source
from mindgen.errors import ConfigError

TABLE = pa.table({"prompt": [f"text {number}\nof two lines" for number in range(300)], "id": list(range(300))})


def parts(folder, ending: str, count: int) -> list:
    return [folder / f"part_{number}{ending}" for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 7, 11, 300])
def test_chunks_hold_all_rows_in_order_and_are_about_even(tmp_path, count):
    pq.write_table(TABLE, tmp_path / "in.parquet")
    paths = parts(tmp_path, ".parquet", count)
    split_rows(open_source(str(tmp_path / "in.parquet")), paths)
    tables = [pq.read_table(path) for path in paths]
    assert pa.concat_tables(tables) == TABLE
    sizes = [table.num_rows for table in tables]
    assert max(sizes) - min(sizes) <= 1
    merge_rows(open_source(str(tmp_path / "part_*.parquet")), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet") == TABLE


def test_lines_stay_as_they_are(tmp_path):
    json_lines = b'{"prompt": "a",  "x": 1.0}\n{"prompt": "b", "y": [1e3]}\n{"prompt": "c"}\n'
    for ending, content in ((".jsonl", json_lines), (".txt", "one\\n\nzwei, drei\n四\n".encode())):
        source, again = tmp_path / f"in{ending}", tmp_path / f"again{ending}"
        source.write_bytes(content)
        paths = parts(tmp_path, ending, 2)
        split_rows(open_source(str(source)), paths)
        assert [len(path.read_bytes().splitlines()) for path in paths] == [2, 1]
        merge_rows(open_source([str(path) for path in paths]), again)
        assert again.read_bytes() == content


def test_csv(tmp_path):
    (tmp_path / "in.csv").write_text('prompt,id\n"a, b",1\nc,2\n')
    split_rows(open_source(str(tmp_path / "in.csv")), parts(tmp_path, ".csv", 2))
    merge_rows(open_source(str(tmp_path / "part_*.csv")), tmp_path / "out.csv")
    found = pyarrow.csv.read_csv(tmp_path / "out.csv")
    assert found.to_pydict() == {"prompt": ["a, b", "c"], "id": [1, 2]}


@pytest.mark.parametrize("prefix", ["", "new_"])
def test_the_numbers_of_jobs_rows_go_on(tmp_path, prefix):
    """A row_id of the input itself is left alone."""
    for number, ids in enumerate(([0, 0, 1, 1], [0, 0, 1, 1, 2, 2])):
        columns = {f"{prefix}row_id": ids, f"{prefix}model_digest": ["d"] * len(ids), "my_row_id": ids}
        pq.write_table(pa.table(columns), tmp_path / f"part_{number}.parquet")
        lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        (tmp_path / f"part_{number}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for ending in (".parquet", ".jsonl"):
        merge_rows(open_source(str(tmp_path / f"part_*{ending}")), tmp_path / f"out{ending}")
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row[f"{prefix}row_id"] for row in found] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [row["my_row_id"] for row in found] == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2]
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == found


def test_refusals(tmp_path):
    pq.write_table(TABLE, tmp_path / "in.parquet")
    source = open_source(str(tmp_path / "in.parquet"))
    with pytest.raises(ConfigError, match="300 row\\(s\\) cannot be split into 301 files"):
        split_rows(source, parts(tmp_path, ".parquet", 301))
    with pytest.raises(ConfigError, match="would hold one column, and there are prompt, id"):
        merge_rows(source, tmp_path / "out.txt")
    assert not list(tmp_path.glob("*out*"))


def test_a_merged_file_is_none_of_those_that_are_merged(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "x"}\n')
    merged = tmp_path / "merged.jsonl"
    for _ in range(2):
        merge_rows(open_source(str(tmp_path), output=merged), merged)
    assert len(merged.read_text().splitlines()) == 2
    with pytest.raises(ConfigError, match=r"the output \S+a.jsonl is the input \S+a.jsonl itself"):
        merge_rows(open_source(str(tmp_path / "a.jsonl")), tmp_path / "a.jsonl")
