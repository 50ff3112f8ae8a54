"""Rows of files: every kind, every type, in blocks over the borders of files, and what is refused."""

import gzip
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typed_columns import COLUMNS, all_types

from mindgen.batch.source import open_source
from mindgen.errors import ConfigError, DataError

NUM_ROWS = 25


def write(path, numbers):
    """A file of the kind its name says, with a prompt and a number in each row."""
    rows = [{"prompt": f"prompt {number}", "number": str(number)} for number in numbers]
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
        return
    lines = {
        "jsonl": [json.dumps(row) for row in rows],
        "csv": ["prompt,number", *(f"{row['prompt']},{row['number']}" for row in rows)],
        "txt": [row["prompt"] for row in rows],
    }[kind]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv", ".txt", ".jsonl.gz", ".csv.gz", ".txt.gz"])
def test_blocks_go_over_the_borders_of_files(tmp_path, ending):
    """In the natural order of names, with and without blocks that are skipped."""
    for part, (begin, end) in {1: (0, 7), 2: (7, 8), 10: (8, NUM_ROWS)}.items():
        write(tmp_path / f"part-{part}{ending}", range(begin, end))
    (tmp_path / "README.md").write_text("no rows")
    source = open_source(str(tmp_path))
    assert [file.num_rows for file in source.files] == [7, 1, 17]
    assert source.num_rows == NUM_ROWS
    assert source.column_names == (("prompt",) if ending.startswith(".txt") else ("prompt", "number"))
    blocks = {rows.first_row: rows for rows in source.blocks(3)}
    assert list(blocks) == list(range(0, NUM_ROWS, 3))
    assert [rows.num_rows for rows in blocks.values()] == [3] * 8 + [1]
    prompts = [prompt for rows in blocks.values() for prompt in rows.values("prompt")]
    assert prompts == [f"prompt {number}" for number in range(NUM_ROWS)]
    assert blocks[24].values("seed") == [None]
    wanted = [rows for rows in source.blocks(3, lambda block: block not in (2, 7))]
    assert [rows.first_row for rows in wanted] == [6, 21]
    assert [rows.values("prompt") for rows in wanted] == [blocks[6].values("prompt"), blocks[21].values("prompt")]
    assert [rows.digest() for rows in wanted] == [blocks[6].digest(), blocks[21].digest()]


@pytest.mark.parametrize("name", COLUMNS)
def test_any_changed_value_is_another_digest(tmp_path, name):
    """And the same values are the same digest, whatever was read before them."""
    column = COLUMNS[name]
    digests = []
    for order in ([0, 1, 2], [0, 1, 2], [2, 1, 0], [0, 0, 2], [1, 1, 1]):
        pq.write_table(
            pa.table({"column": pa.concat_arrays([column[i : i + 1] for i in order])}), tmp_path / "a.parquet"
        )
        source = open_source(str(tmp_path / "a.parquet"))
        digests.append([rows.digest() for rows in source.blocks(1)])
        assert [rows.digest() for rows in source.blocks(1, lambda block: block < 2)] == digests[-1][2:]
    assert digests[0] == digests[1]
    first, null, third = digests[0]
    assert digests[2:] == [[third, null, first], [first, first, third], [null, null, null]]
    assert len({first, null, third}) == (1 if name == "empty" else 3)


def test_all_types_are_read_as_they_are(tmp_path):
    pq.write_table(all_types(), tmp_path / "all.parquet")
    source = open_source(str(tmp_path / "all.parquet"))
    assert source.schema().equals(pq.read_schema(tmp_path / "all.parquet"), check_metadata=True)
    (rows,) = source.blocks(10)
    for name in ("prompt", "large_text", "text_view", "chat", "token_ids", "struct", "category"):
        assert rows.values(name) == COLUMNS[name].to_pylist()


def test_cells_of_csv_are_text_as_it_stands_there(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        b'\xef\xbb\xbfprompt,code\r\n"two\r\nlines, ""quoted""",007\r\n,1e5\r\n\r\n" x",NA\r\n'
    )
    (rows,) = open_source(str(tmp_path / "a.csv")).blocks(10)
    assert rows.values("prompt") == ['two\r\nlines, "quoted"', "", " x"]
    assert rows.values("code") == ["007", "1e5", "NA"]


def test_lines_of_text_end_in_any_way(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\rthree\n\nfive\u2028still five".encode())
    (rows,) = open_source(str(tmp_path / "a.txt"), "question").blocks(10)
    assert rows.values("question") == ["one", "two", "three", "", "five\u2028still five"]


def test_rows_of_json_have_values_of_their_own(tmp_path):
    lines = ['{"prompt": "a", "n": 123456789012345678901234567890}', "", '{"prompt": ["b"], "other": 1.10}', "{}"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = open_source(str(tmp_path / "a.jsonl"))
    assert source.column_names == ("prompt", "n", "other")
    (rows,) = source.blocks(10)
    assert rows.values("prompt") == ["a", ["b"], None]
    assert rows.values("n") == [123456789012345678901234567890, None, None]
    assert [text.decode() for text in rows.json_objects()] == [line for line in lines if line]


def test_columns_of_json_have_types_that_hold_all_values(tmp_path):
    rows = [
        {"number": 1, "wide": 1, "chat": [{"role": "user"}], "none": None, "list": []},
        {"number": 2.5, "wide": 2**60, "chat": [{"content": "x"}, {"role": "system"}], "late": True, "list": [[]]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types = [pa.float64(), pa.int64(), chat, pa.null(), pa.list_(pa.list_(pa.null())), pa.bool_()]
    source = open_source(str(tmp_path / "a.jsonl"))
    assert source.schema().types == types
    (read,) = source.blocks(10)
    assert read.table().to_pylist()[1] == {
        "number": 2.5,
        "wide": 2**60,
        "chat": [{"role": None, "content": "x"}, {"role": "system", "content": None}],
        "none": None,
        "list": [[]],
        "late": True,
    }


MIXED = [
    ('{"a": 1}', '{"a": "x"}', "column a has mixed types: a whole number in .* line 1, but text in .* line 2"),
    ('{"a": true}', '{"a": 1}', "column a has mixed types: true or false in .* line 1, but a whole number in"),
    ('{"a": [1]}', '{"a": ["x"]}', r"column a\[\] has mixed types"),
    (
        '{"a": {"b": [{"c": 1}]}}',
        '{"a": {"b": [{"c": []}]}}',
        r"column a.b\[\].c has mixed types: a whole number .* a list",
    ),
    ('{"a": "x"}', '{"a": {}}', "column a has mixed types: text in .* but an object in"),
    ('{"a": 9007199254740993}', '{"a": 0.5}', "a whole number beyond 2\\^53 in .* a number with a fraction in"),
    ('{"a": 1}', '{"a": 18446744073709551616}', "a whole number beyond 64 bits in .* line 2"),
    ('{"a": {}}', '{"a": {}}', "column a has only empty objects"),
]


@pytest.mark.parametrize(("first", "second", "message"), MIXED)
def test_mixed_types_have_no_schema(tmp_path, first, second, message):
    """Though rows can be read, and written to JSON lines."""
    (tmp_path / "a.jsonl").write_text(f"{first}\n{second}\n")
    source = open_source(str(tmp_path / "a.jsonl"))
    assert sum(rows.num_rows for rows in source.blocks(10)) == 2
    with pytest.raises(DataError, match=message):
        source.schema()


def test_digests_are_of_every_byte(tmp_path):
    """And of nothing but the content."""
    path = tmp_path / "rows.jsonl"
    write(path, range(60_000))
    first = open_source(str(path)).digests()
    assert open_source(str(path.rename(tmp_path / "others.jsonl"))).digests() == first
    content = (tmp_path / "others.jsonl").read_bytes()
    path.write_bytes(content.replace(b"prompt 31234", b"prompt 13234"))
    assert open_source(str(path)).digests() != first


def save(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def save_parquet(name, table=None, size=None, **options):
    """A Parquet file, or the first bytes of one."""

    def make(folder):
        pq.write_table(pa.table({"prompt": ["x"]}) if table is None else table, folder / name, **options)
        if size is not None:
            (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return make


def both(first, second):
    return lambda folder: (first(folder), second(folder))


TWICE = pa.Table.from_arrays([pa.array(["x"])] * 2, ["prompt", "prompt"])
REFUSED = {
    "no file": ("absent.parquet", None, "there is no file or folder .*absent.parquet"),
    "no match": ("*.parquet", None, "no file matches .*\\*.parquet"),
    "empty folder": ("", None, "the folder .* has no file that ends in .parquet"),
    "hidden": ("", save("_SUCCESS", b""), "the folder .* has no file"),
    "unknown ending": ("a.parqet", save("a.parqet", b"x"), r"must end in .*, not .parqet \(did you mean .parquet\?\)"),
    "no ending": ("rows", save("rows", b"x"), "rows must end in one of .parquet, .jsonl, .csv, .txt$"),
    "no rows": (
        "a.parquet",
        save_parquet("a.parquet", pa.table({"prompt": pa.array([], pa.string())})),
        "there is no row in",
    ),
    "empty text": ("a.txt", save("a.txt", b""), "there is no row in .*a.txt"),
    "blank JSON lines": ("a.jsonl", save("a.jsonl", b"\n\n"), "there is no row in .*a.jsonl"),
    "empty CSV": ("a.csv", save("a.csv", b""), "cannot read .*a.csv: Empty CSV file"),
    "only a header": ("a.csv", save("a.csv", b"prompt\n"), "there is no row in .*a.csv"),
    "no Parquet": ("a.parquet", save("a.parquet", b"prompt\nx\n" * 9), "a.parquet: it is not a whole Parquet file"),
    "empty Parquet": ("a.parquet", save("a.parquet", b""), "a.parquet: it is not a whole Parquet file"),
    "truncated": ("a.parquet", save_parquet("a.parquet", size=200), "a.parquet: it is not a whole Parquet file"),
    "same names": ("a.parquet", save_parquet("a.parquet", TWICE), "two of its columns are named 'prompt'"),
    "same names in CSV": ("a.csv", save("a.csv", b"a,b,a\n1,2,3\n"), "two of its columns are named 'a'"),
    "JSON": ("a.jsonl", save("a.jsonl", b'{"a": 1}\n\n{"a": \n'), "a.jsonl line 3 is not valid JSON"),
    "NaN": ("a.jsonl", save("a.jsonl", b'{"a": NaN}\n'), "a.jsonl line 1 is not valid JSON"),
    "deep": ("a.jsonl", save("a.jsonl", b"[" * 100_000), "a.jsonl line 1 is not valid JSON"),
    "no object": ("a.jsonl", save("a.jsonl", b'{"a": 1}\n["a"]\n'), "line 2 must hold a JSON object, not list"),
    "JSON's bytes": ("a.jsonl", save("a.jsonl", b'{"a": "\xff"}\n'), "line 1 is not valid JSON: 'utf-8' codec"),
    "text's bytes": ("a.txt", save("a.txt", b"fine\nb\xffd\n"), "a.txt line 2 is not UTF-8 text"),
    "CSV's bytes": ("a.csv", save("a.csv", b"a\nfine\nb\xffd\n"), "a.csv: .*Row #3: .*invalid UTF8"),
    "CSV's cells": ("a.csv", save("a.csv", b"a,b\n1,2\n1,2,3\n"), "a.csv: .*Row #3: Expected 2 columns, got 3"),
    "an open quote": ("a.csv", save("a.csv", b'a,b\n1,"2\n3,4\n'), "a.csv: the last quote is not closed"),
    "no gzip": ("a.jsonl.gz", save("a.jsonl.gz", b'{"a": 1}\n'), "cannot read .*a.jsonl.gz: Not a gzipped file"),
    "cut gzip": ("a.txt.gz", save("a.txt.gz", gzip.compress(b"abc" * 99)[:-9]), "a.txt.gz: it is cut off or damaged"),
    "kinds": ("", both(save("a.txt", b"x"), save("b.csv", b"a\nx")), "must be of one kind, not .*a.txt and .*b.csv"),
    "columns": (
        "",
        both(save("1.csv", b"a,b\n1,2"), save("2.csv", b"a\n1")),
        "2.csv does not go with .*1.csv: its columns are a, not a, b",
    ),
    "types": (
        "",
        both(save_parquet("1.parquet"), save_parquet("2.parquet", pa.table({"prompt": [1]}))),
        "2.parquet does not go with .*1.parquet: its column prompt is int64, not string",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_input_is_refused(tmp_path, case):
    name, make, message = REFUSED[case]
    if make is not None:
        make(tmp_path)
    with pytest.raises((ConfigError, DataError), match=message) as refusal:
        open_source(str(tmp_path / name))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "a.csv", "*.csv"])
def test_what_may_not_be_read_is_refused(tmp_path, name):
    """Another user's, that is: root may read everything."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.csv", range(3))
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises((DataError, ConfigError), match="Permission denied|no file matches"):
            open_source(str(folder / name))
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_a_file_named_twice_is_refused(tmp_path):
    write(tmp_path / "a.txt", range(3))
    with pytest.raises(ConfigError, match="a.txt is named twice"):
        open_source([str(tmp_path / "*.txt"), str(tmp_path / "a.txt")])


def test_a_column_that_is_not_there_is_refused(tmp_path):
    write(tmp_path / "a.csv", range(3))
    source = open_source(str(tmp_path / "a.csv"))
    source.check_column("prompt")
    with pytest.raises(DataError, match=r"has no column promt \(did you mean prompt\?\); it has prompt, number"):
        source.check_column("promt")


def test_a_damaged_page_is_found_where_it_is(tmp_path):
    """What comes before it is read."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": [f"{i} {i * i}" for i in range(4000)]}), path, row_group_size=1000)
    column = pq.read_metadata(path).row_group(2).column(0)
    content = bytearray(path.read_bytes())
    middle = column.dictionary_page_offset + column.total_compressed_size // 2
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(content)
    blocks = open_source(str(path)).blocks(500)
    assert [next(blocks).first_row for _ in range(4)] == [0, 500, 1000, 1500]
    with pytest.raises(DataError, match="a.parquet: row group 2 is damaged: ") as refusal:
        list(blocks)
    assert "\n" not in str(refusal.value)


def test_a_file_that_got_shorter_is_found(tmp_path):
    for name in ("a.jsonl", "a.txt", "a.csv"):
        write(tmp_path / name, range(9))
        source = open_source(str(tmp_path / name))
        write(tmp_path / name, range(5))
        with pytest.raises(DataError, match=f"{name}: it has fewer rows than it had"):
            list(source.blocks(2))


MEASURE = """
import resource, sys
from mindgen.batch.source import open_source
source = open_source(sys.argv[1])
blocks = source.blocks(1000)
num_rows = 0
for number, rows in enumerate(blocks):
    if number == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_rows += len(rows.values("prompt"))
    rows.digest()
print(num_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_memory_does_not_grow_with_the_rows(tmp_path, ending):
    """Of rows that are one row group in Parquet."""
    path = tmp_path / f"large{ending}"
    num_rows, padding = (1_000_000 if ending == ".parquet" else 300_000), "x" * 100
    if ending == ".parquet":
        prompts = pc.binary_join_element_wise(pa.array(range(num_rows)).cast(pa.string()), padding, "")
        pq.write_table(pa.table({"prompt": prompts, "number": range(num_rows)}), path, row_group_size=num_rows)
    else:
        with path.open("w") as file:
            file.writelines(f'{{"prompt": "{number}{padding}", "number": {number}}}\n' for number in range(num_rows))
    result = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    rows, kilobytes = map(int, result.stdout.split())
    assert rows == num_rows
    assert kilobytes < 40_000  # where all rows would take more than 100 MB
