import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mindgen.cli.main import main


def run(*words):
    return main(["batch", "compare", *(str(word) for word in words)])


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, shift in (("a", 0), ("b", 1)):
        rows = [{"row_id": row, "generated_text": f"text {row * (1 + shift)}\x1b[31m", "score": float(row + shift)}
                for row in range(8 - shift)]  # fmt: skip
        paths.append(tmp_path / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist(rows), paths[-1])
    return paths


def test_tables_page_and_json(files, tmp_path, capsys):
    assert run(*files, "--output", tmp_path / "page.html", "--json", tmp_path / "out.json", "--samples", 2) == 0
    shown = capsys.readouterr().out
    assert "1 of 7: 14.3% (2.6 to 51.3)" in shown and "only in a: 7, 0" in shown and "\x1b" not in shown
    assert "+1 to +1" in shown
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["pairs"] == 7 and len(written["most_different"]) == 2
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_wrong_usage_is_refused(files, capsys):
    assert run(*files, "--key", "id") == 2
    assert "has no column 'id'" in capsys.readouterr().err
    assert run(*files, "--samples", -1) == 2
    assert "--samples must be at least 0, not -1" in capsys.readouterr().err
