"""What is read is written again, with columns that are added: from every kind of file to every kind."""

import csv
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from copies import ADDED, copy
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_columns import COLUMNS, all_types

from mindgen.batch.sink import check_added_names, check_output, open_sink
from mindgen.batch.source import open_source
from mindgen.errors import ConfigError, DataError


@pytest.fixture
def typed(tmp_path):
    path = tmp_path / "typed.parquet"
    pq.write_table(all_types(), path)
    return path


def test_parquet_keeps_columns_as_they_are(typed, tmp_path):
    """All types, the metadata of fields and of the whole; and what is added goes behind them."""
    written = pq.read_table(copy(typed, tmp_path / "out.parquet", samples=2))
    kept = written.drop_columns(ADDED.names).schema
    assert kept.equals(pq.read_schema(typed), check_metadata=True)
    assert written.select(ADDED.names).schema.equals(ADDED)
    for name, column in COLUMNS.items():
        # As text, for which all NaN are equal.
        assert str(written[name].to_pylist()) == str([value for value in column.to_pylist() for _ in range(2)])
    assert written["generated_text"].to_pylist()[:3] == ["row 0\\\nsample 0", "row 0\\\nsample 1", None]
    assert written["error"].to_pylist() == [None, None, "failed", "failed", None, None]


AS_JSON = {
    "prompt": "first",
    "empty": None,
    "flag": True,
    "small": -1,
    "huge": 0,
    "half": 0.5,
    "double": 0.1,
    "large_text": "a",
    "text_view": "a",
    "bytes": "AP8=",
    "large_bytes": "AP8=",
    "fixed_bytes": "YWJjZA==",
    "decimal": "1.10",
    "wide_decimal": "1" + "0" * 40,
    "day": "2024-02-29",
    "time": "00:00:00.000000001",
    "naive": "2024-02-29 12:30:15.123456",
    "zoned": "2024-02-29 13:30:15.123456+0100",
    "nanoseconds": "1970-01-01 00:00:00.000000001Z",
    "duration": 1,
    "category": "high",
    "chat": [{"role": "user", "content": "hi"}],
    "token_ids": [1, None],
    "pair": [1.0, 2.0],
    "struct": {"at": "2024-02-29 12:30:15.123456", "of": ["x"]},
    "map": [["a", 1], ["b", None]],
    "categories": ["x", "y"],
    "nothings": [None],
}


def test_all_types_become_json(typed, tmp_path):
    lines = copy(typed, tmp_path / "out.jsonl").read_text().splitlines()
    first, second, third = map(json.loads, lines)
    assert first.pop("single") == pytest.approx(0.1)
    answer = {"generated_text": "row 0\\\nsample 0", "logprobs": [-0.5, 0.0], "error": None}
    assert first == {**AS_JSON, **answer}
    assert list(second) == [*COLUMNS, *ADDED.names]
    assert {name for name, value in second.items() if value is not None} == {"pair", "error"}
    assert third["double"] is None
    assert third["huge"] == 2**64 - 1


def test_all_types_become_csv(typed, tmp_path):
    """Lists and structs as their JSON."""
    with copy(typed, tmp_path / "out.csv").open(newline="") as file:
        first, second, _ = csv.DictReader(file)
    assert float(first.pop("single")) == pytest.approx(0.1)
    assert first.pop("generated_text") == "row 0\\\nsample 0"
    assert first.pop("logprobs") == "[-0.5,0.0]"
    assert first.pop("error") == ""
    for name, value in first.items():
        expected = AS_JSON[name]
        if isinstance(expected, list | dict):
            assert json.loads(value) == expected
        else:
            assert value == ("" if expected is None else "true" if expected is True else str(expected))
    assert second["generated_text"] == ""
    assert second["error"] == "failed"


def test_text_has_a_line_for_each_sample(typed, tmp_path):
    lines = copy(typed, tmp_path / "out.txt", samples=2).read_bytes()
    assert lines.decode().split("\n") == [
        r"row 0\\\nsample 0", r"row 0\\\nsample 1", "", "", r"row 2\\\nsample 0", r"row 2\\\nsample 1", "",
    ]  # fmt: skip


CSV = 'prompt,code\n"two\nlines, ""quoted""",007\n,1e5\n'


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("in.csv", CSV, [{"prompt": 'two\nlines, "quoted"', "code": "007"}, {"prompt": "", "code": "1e5"}]),
        ("in.txt", "one\ntwo\n", [{"prompt": "one"}, {"prompt": "two"}]),
        (
            "in.jsonl",
            '{"prompt":"x","n":"1"}\n{"n":"","prompt":"y"}',
            [{"prompt": "x", "n": "1"}, {"prompt": "y", "n": ""}],
        ),
    ],
)
def test_texts_are_the_same_in_all_kinds(tmp_path, name, content, rows, ending):
    (tmp_path / name).write_text(content)
    path = copy(tmp_path / name, tmp_path / f"out{ending}")
    (read,) = open_source(str(path)).blocks(10)
    for column in rows[0]:
        assert read.values(column) == [row[column] for row in rows]
    assert read.values("error") == (["", "failed"] if ending == ".csv" else [None, "failed"])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(st.text().filter(lambda key: key not in ADDED.names), _VALUES), min_size=1, max_size=5
    )
)
def test_json_lines_keep_each_row_as_it_is(tmp_path_factory, rows):
    """Mixed types, absent keys, integers of any size, and every digit of a float."""
    folder = tmp_path_factory.mktemp("lines")
    (folder / "in.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    written = copy(folder / "in.jsonl", folder / "out.jsonl").read_text().split("\n")[:-1]
    assert len(written) == len(rows)
    for row, line in zip(rows, written, strict=True):
        read = json.loads(line)
        assert list(read) == [*row, *ADDED.names]
        assert [repr(read[name]) for name in row] == [repr(value) for value in row.values()]


def test_json_becomes_columns_with_types(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "x", "meta": {"a": 1}}\n{"meta": {"b": [0.5]}, "score": 1}\n')
    written = pq.read_table(copy(tmp_path / "in.jsonl", tmp_path / "out.parquet"))
    assert written.drop_columns(ADDED.names).to_pylist() == [
        {"prompt": "x", "meta": {"a": 1, "b": None}, "score": None},
        {"prompt": None, "meta": {"a": None, "b": [0.5]}, "score": 1},
    ]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_bytes_follow_from_the_rows_alone(tmp_path, ending):
    """Whatever blocks they come in; and row groups have one size."""
    table = pa.table({"prompt": [f"prompt {i % 77}" if i % 5 else None for i in range(40_000)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1111)
    written = {
        copy(tmp_path / "in.parquet", tmp_path / f"{size}{ending}", rows_per_block=size) for size in (999, 10_000)
    }
    assert len({path.read_bytes() for path in written}) == 1
    if ending == ".parquet":
        metadata = pq.read_metadata(written.pop())
        assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [16384, 16384, 7232]


def test_names_that_both_have_are_refused(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "x"}\n{"error": 1, "generated_text": 2}\n')
    source = open_source(str(tmp_path / "in.jsonl"))
    message = "the input has columns of its own named generated_text, error: give those that are added a prefix"
    with pytest.raises(ConfigError, match=message):
        check_added_names(source, ADDED)
    with pytest.raises(ConfigError, match=message), open_sink(tmp_path / "out.jsonl", source, ADDED, "generated_text"):
        pass
    assert not (tmp_path / "out.jsonl").exists()


def test_outputs_that_cannot_be_are_refused_before(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "x"}\n{"prompt": ["x"]}\n')
    source = open_source(str(tmp_path / "in.jsonl"))
    check_output(tmp_path / "out.jsonl", source, ADDED, "generated_text")
    with pytest.raises(ConfigError, match=r"must end in one of .*\(did you mean .jsonl\?\)"):
        check_output(tmp_path / "out.json", source, ADDED, "generated_text")
    for ending in (".parquet", ".csv"):
        with pytest.raises(DataError, match="column prompt has mixed types: .*; write a .jsonl file"):
            check_output(tmp_path / f"out{ending}", source, ADDED, "generated_text")
    with pytest.raises(ConfigError, match="holds one text a line, not the lists of logprobs"):
        check_output(tmp_path / "out.txt", source, ADDED, "logprobs")


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv", ".txt"])
def test_an_error_leaves_what_was_there(tmp_path, typed, ending):
    path = tmp_path / f"out{ending}"
    path.write_text("before")
    source = open_source(str(typed))
    with suppress(KeyboardInterrupt), open_sink(path, source, ADDED, "generated_text") as sink:
        for rows in source.blocks(10):
            sink.write(rows, pa.table([["x"] * 3, [[]] * 3, [""] * 3], schema=ADDED))
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert {file.name for file in tmp_path.iterdir()} == {typed.name, path.name}


FULL_DISK = """
import resource, sys
from pathlib import Path
folder, tests = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, tests)
from copies import copy
from mindgen.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for ending in (".parquet", ".jsonl", ".csv", ".txt"):
    try:
        copy(folder / "in.txt", folder / f"out{ending}", rows_per_block=1000)
    except DataError as error:
        print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands for it."""
    (tmp_path / "in.txt").write_text("".join(f"{number * number}\n" for number in range(20_000)))
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True)
    endings = (".parquet", ".jsonl", ".csv", ".txt")
    assert result.stdout.splitlines() == [f"cannot write {tmp_path}/out{ending}: File too large" for ending in endings]
    assert result.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
