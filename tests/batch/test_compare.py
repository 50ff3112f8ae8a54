import json
import math
import random

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import scipy.stats
from batch_answers import EVIL
from web_page import WebPage

from mindgen.batch.compare import Columns, Comparison, compare_outputs
from mindgen.batch.compare.intervals import paired_difference, t_quantile, wilson
from mindgen.batch.compare.page import make_comparison_page
from mindgen.batch.compare.sample_table import sketch
from mindgen.batch.compare.words import differing_words
from mindgen.errors import DataError, UsageError


def line(row, sample, text, **more):
    given = {"finish_reason": "stop", "error": None, "completion_tokens": None if text is None else len(text.split())}
    return {"prompt": f"prompt {row}", "row_id": row, "sample_id": sample, "generated_text": text, **given, **more}


FIRST = [
    line(0, 0, "the same text", logprobs=[-1.0, -2.0], reward=1.0),
    line(0, 1, "a cat sat here", logprobs=[-1.0], reward=0.0),
    line(1, 0, "one two three", logprobs=[-0.5], reward=0.5, finish_reason="length"),
    line(1, 1, None, logprobs=None, reward=None, error="too long", finish_reason=None),
    line(2, 0, "only in the first", logprobs=[-1.0], reward=1.0),
    line(4, 0, "twice", logprobs=[-1.0], reward=9.0),
    line(4, 0, "twice again", logprobs=[-1.0], reward=9.0),
]
SECOND = [
    line(4, 0, "once here", logprobs=[-1.0], reward=-9.0),
    line(1, 1, "an answer", logprobs=[-1.0], reward=0.0),
    line(1, 0, "one two three four five", logprobs=[-0.25, -0.25], reward=1.5, finish_reason="stop"),
    line(0, 1, "a dog sat there", logprobs=[-3.0], reward=1.0),
    line(3, 0, "only in the second", logprobs=[-1.0], reward=1.0),
    line(0, 0, "the same text", logprobs=[-1.0, -1.0], reward=1.0),
]


def listed(lines):
    """In the other form: a row for each prompt."""
    rows = {}
    for each in lines:
        row = rows.setdefault(each["row_id"], {"prompt": each["prompt"], "row_id": each["row_id"]})
        for name, column in {"responses": "generated_text", "finish_reason": "finish_reason", "error": "error",
                             "completion_tokens": "completion_tokens", "logprobs": "logprobs",
                             "reward": "reward"}.items():  # fmt: skip
            row.setdefault(name, []).append(each[column])
    return list(rows.values())


def write(path, lines, prefix=""):
    added = set(line(0, 0, "")) - {"prompt"} | {"responses", "logprobs"}
    lines = [{prefix * (name in added) + name: value for name, value in each.items()} for each in lines]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    elif path.suffix == ".csv":
        texts = [{name: value if isinstance(value, str | None) else json.dumps(value) for name, value in each.items()}
                 for each in lines]  # fmt: skip
        csv.write_csv(pa.Table.from_pylist(texts), path)
    else:
        pq.write_table(pa.Table.from_pylist(lines), path)
    return path


def compare(tmp_path, first=FIRST, second=SECOND, columns=None, kinds=(".parquet", ".parquet"), **options):
    a, b = write(tmp_path / f"a{kinds[0]}", first), write(tmp_path / f"b{kinds[1]}", second)
    return compare_outputs(a, b, columns or Columns(), **options)


def test_the_figures_of_two_small_files(tmp_path):
    found = compare(tmp_path)
    assert (found.a.samples, found.b.samples, found.pairs, found.key) == (7, 6, 4, ["row_id"])
    assert (found.a.failed, found.b.failed) == (1, 0)
    assert (found.a.only_here, found.a.only_here_examples) == (1, [["2", "0"]])
    assert (found.b.only_here, found.b.only_here_examples) == (1, [["3", "0"]])
    assert (found.a.duplicate_keys, found.a.duplicates, found.a.duplicate_examples) == (1, 2, [["4", "0"]])
    assert (found.b.duplicates, found.b.duplicate_there, found.a.duplicate_there) == (0, 1, 0)
    for file in (found.a, found.b):
        parts = file.compared + file.only_here + file.duplicates + file.duplicate_there + file.without_key
        assert file.samples == parts
    assert (found.identical.count, found.identical.of) == (1, 3)
    assert (found.failed_both, found.failed_only_a, found.failed_only_b) == (0, 1, 0)
    assert (found.finish_changed.count, found.finish_changed.of) == (1, 3)
    assert [(each.a, each.b, each.count) for each in found.finish_reasons] == [
        ("stop", "stop", 2), ("length", "stop", 1)]  # fmt: skip
    means = {each.name: (each.pairs, each.mean_a, each.mean_b, each.mean) for each in found.differences}
    assert means["characters"] == pytest.approx((3, (13 + 14 + 13) / 3, (13 + 15 + 23) / 3, 11 / 3))
    assert means["tokens"] == pytest.approx((3, 10 / 3, 12 / 3, 2 / 3))
    assert means["mean logprob"] == pytest.approx((3, -1.0, -4.25 / 3, -1.25 / 3))
    assert means["reward"] == pytest.approx((3, 0.5, 3.5 / 3, 2 / 3))
    assert [(pair.key, pair.sample) for pair in found.most_different] in (
        [(["0"], 1), (["1"], 0)], [(["1"], 0), (["0"], 1)])  # fmt: skip
    pair = next(pair for pair in found.most_different if pair.key == ["0"])
    assert (pair.prompt, pair.a.text, pair.b.text) == ("prompt 0", "a cat sat here", "a dog sat there")
    assert [piece.text for piece in pair.a.pieces if piece.differs] == ["cat", "here"]
    assert pair.b.scores == {"tokens": 4, "reward": 1.0}


@pytest.mark.parametrize("kinds", [(".jsonl", ".parquet"), (".csv", ".jsonl"), (".parquet", ".csv")])
def test_kind_of_file_order_and_form_change_nothing(kinds, tmp_path):
    first, second = FIRST[:5], [each for each in SECOND if each["row_id"] != 4]
    expected = compare(tmp_path, first, second)
    shuffled = random.Random(0).sample(second, len(second))
    unpathed = {"a": None, "b": None}
    for one, other in ((first, shuffled), (listed(first), second), (first, listed(sorted(second, key=str)))):
        found = compare(tmp_path, one, other, kinds=kinds)
        assert msgspec.structs.replace(found, **unpathed) == msgspec.structs.replace(expected, **unpathed)
        assert msgspec.structs.replace(found.a, path="") == msgspec.structs.replace(expected.a, path="")


def test_rows_are_joined_by_other_columns_and_without_a_key_are_counted(tmp_path):
    first = [{"id": f"q{row}", "part": row % 2, "generated_text": "x"} for row in range(6)] + [
        {"id": None, "part": 0, "generated_text": "x"}]  # fmt: skip
    second = [{"id": f"q{row}", "part": 0, "generated_text": "y"} for row in range(6)]
    found = compare(tmp_path, first, second, Columns(key=["id"]))
    assert (found.pairs, found.a.without_key, found.identical.count) == (6, 1, 0)
    assert compare(tmp_path, first, second, Columns(key=["id", "part"])).pairs == 3


def test_columns_with_a_prefix_are_found_or_asked_for(tmp_path):
    expected = compare(tmp_path)
    a = write(tmp_path / "prefixed.parquet", FIRST, prefix="new_")
    found = compare_outputs(a, tmp_path / "b.parquet", Columns())
    assert found.identical == expected.identical and found.differences == expected.differences
    both = [{f"new_{name}": value for name, value in each.items()} | {"generated_text": "old"} for each in FIRST]
    b = write(tmp_path / "both.parquet", both)
    with pytest.raises(UsageError, match="several columns of answers, new_generated_text, generated_text: say"):
        compare_outputs(a, b, Columns())
    assert compare_outputs(a, b, Columns(prefix="new_")).identical.rate == 1.0


def test_what_cannot_be_compared_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", FIRST)
    with pytest.raises(UsageError, match="has no column 'scor', but prompt, row_id"):
        compare_outputs(path, path, Columns(scores=["scor"]))
    other = write(tmp_path / "b.parquet", [{"text": "x"}])
    with pytest.raises(UsageError, match="is no output of mindgen batch: it has no column 'generated_text'"):
        compare_outputs(path, other, Columns())
    nameless = write(tmp_path / "c.parquet", [{"generated_text": "x"}])
    with pytest.raises(UsageError, match="has no column 'row_id', .*; say with --key"):
        compare_outputs(nameless, path, Columns())
    (tmp_path / "d.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"cannot read .*d\.parquet"):
        compare_outputs(path, tmp_path / "d.parquet", Columns())


def test_other_numbers_are_compared_by_name(tmp_path):
    first, second = ([each | {"quality": value} for each in FIRST[:5]] for value in (1, 4))
    (found,) = (each for each in compare(tmp_path, first, second, Columns(scores=["quality"])).differences
                if each.name == "quality")  # fmt: skip
    assert (found.mean, found.low, found.high) == (3.0, 3.0, 3.0)
    found = compare(tmp_path, columns=Columns(scores=["prompt"])).differences
    assert [each.pairs for each in found if each.name == "prompt"] == [0]  # texts are no numbers, and it is said


def test_the_interval_is_students_and_that_of_row_means_for_rows_of_equal_size():
    random_numbers = np.random.default_rng(0)
    first, second = random_numbers.normal(size=(2, 12))
    found = paired_difference("x", first, second, np.arange(12, dtype=np.uint64))
    expected = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-3)
    found = paired_difference("x", first, second, np.repeat(np.arange(4, dtype=np.uint64), 3))
    rows = (second - first).reshape(4, 3).mean(1)
    expected = scipy.stats.ttest_1samp(rows, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=2e-3)
    first[3] = math.nan
    assert paired_difference("x", first, second, np.arange(12, dtype=np.uint64)).pairs == 11
    assert paired_difference("x", first[:1], second[:1], np.zeros(1, np.uint64)).low is None


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 10, 100, 10**6])
def test_the_quantile_is_students(degrees):
    assert t_quantile(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), rel=2e-3)


@pytest.mark.parametrize(("count", "of"), [(0, 7), (3, 7), (7, 7), (450, 1000)])
def test_the_interval_of_a_rate_is_wilsons(count, of):
    expected = scipy.stats.binomtest(count, of).proportion_ci(0.95, "wilson")
    found = wilson(count, of)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0).rate is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Samples of a row are alike: an interval that took them for independent would hold it in about 70 % only."""
    random_numbers = np.random.default_rng(2)
    rows, held, naive = np.repeat(np.arange(30, dtype=np.uint64), 5), 0, 0
    for _ in range(1000):
        noise = np.repeat(random_numbers.normal(size=30), 5) + 0.5 * random_numbers.normal(size=150)
        first = random_numbers.normal(size=150)
        found = paired_difference("x", first, first + 0.3 + noise, rows)
        held += found.low <= 0.3 <= found.high
        found = paired_difference("x", first, first + 0.3 + noise, np.arange(150, dtype=np.uint64))
        naive += found.low <= 0.3 <= found.high
    assert 930 <= held <= 970 and naive < 800


def test_sketches_differ_as_texts_do():
    words = [f"word{place}" for place in range(200)]
    changed, others = [*words[:180], *(f"new{place}" for place in range(20))], [f"x{place}" for place in range(200)]
    first, second, third = (sketch(" ".join(each)) for each in (words, changed, others))
    assert sketch("") == 0 and first == sketch("  ".join(words))
    assert 0 < (first ^ second).bit_count() < 20 < (first ^ third).bit_count() < 44


def test_the_texts_that_differ_most_come_first(tmp_path):
    words = [f"word{place}" for place in range(60)]

    def lines(changed):
        return [line(row, 0, " ".join(["new" + word for word in words[: row * changed]] + words[row * changed :]))
                for row in range(10)]  # fmt: skip

    found = compare(tmp_path, lines(0), lines(6), most_shown=3)
    assert len(found.most_different) == 3 and {pair.key[0] for pair in found.most_different} <= {"7", "8", "9", "6"}
    distances = [pair.distance for pair in found.most_different]
    assert distances == sorted(distances, reverse=True) and 0 < distances[0] < 1


def test_pieces_joined_are_the_texts():
    first, second = "a  b,c d\n", "a b, c d"
    pieces = differing_words(first, second)
    assert ["".join(piece.text for piece in each) for each in pieces] == [first, second]
    assert differing_words("", "x")[1][0].differs and differing_words("same", "same")[0][0].differs is False


def test_the_page_shows_strangers_text_as_text(tmp_path):
    first, second = [line(0, 0, EVIL + " one")], [line(0, 0, EVIL + " two", finish_reason=EVIL)]
    page = make_comparison_page(compare(tmp_path, first, second), "1.2.3")
    read = WebPage(page)
    assert read.loads == [] and "script" not in read.tags and read.text.count(EVIL) >= 3
    assert '<mark class="a">one</mark>' in page and '<mark class="b">two</mark>' in page and "1.2.3" in read.text


def test_the_json_is_read_back_as_it_was(tmp_path):
    found = compare(tmp_path)
    text = msgspec.json.encode(found)
    assert msgspec.json.decode(text, type=Comparison) == found
    assert json.loads(text)["schema"] == "mindgen.batch.compare/1"
