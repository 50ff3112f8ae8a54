"""`mindgen batch compare`: two outputs of a batch, sample against sample. Needs no MindSpore."""

import argparse
from importlib.metadata import version
from pathlib import Path

import msgspec

from mindgen.batch.compare import Columns, Comparison, compare_outputs
from mindgen.batch.compare.figures import DIFFERENCE_COLUMNS, difference_row, example_lines, file_rows, rate_text
from mindgen.batch.compare.page import write_comparison_page
from mindgen.cli.tables import make_console, make_table, printable
from mindgen.errors import UsageError
from mindgen.system.atomic import whole_file

_PAIRS_ON_THE_TERMINAL = 3
_LETTERS_ON_THE_TERMINAL = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("a", type=Path, metavar="A", help="an output of mindgen batch: .parquet, .jsonl or .csv")
    option("b", type=Path, metavar="B", help="another one, in any order")
    option("--key", nargs="+", default=[], metavar="COLUMN", help="what tells rows apart (default: row_id)")
    option("--score", nargs="+", default=[], metavar="COLUMN",
           help="numbers to compare, besides score and reward where both files have them")  # fmt: skip
    option("--prefix", metavar="PREFIX", help="of the columns that the job has added, where it cannot be seen")
    option("--samples", type=int, default=20, metavar="N", help="how many of the pairs that differ most to show (20)")
    option("--output", type=Path, metavar="FILE", help="write a page of HTML")
    option("--json", type=Path, metavar="FILE", help="write all figures, and the texts that are shown")
    option("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Compares, prints, and writes what is asked for.

    Raises:
        MindgenError: a file cannot be read, or has not the columns.
        OSError: a file cannot be written.
    """
    if arguments.samples < 0:
        raise UsageError(f"--samples must be at least 0, not {arguments.samples}")
    columns = Columns(key=arguments.key, prefix=arguments.prefix, scores=arguments.score)
    comparison = compare_outputs(arguments.a, arguments.b, columns, arguments.samples)
    print_comparison(comparison)
    if arguments.output is not None:
        write_comparison_page(arguments.output, comparison, version("mindgen"))
    if arguments.json is not None:
        with whole_file(arguments.json) as unfinished:
            unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")
    return 0


def print_comparison(comparison: Comparison) -> None:
    """Tables of the figures, and the first pairs of texts."""
    console = make_console()
    files = make_table("samples", f"a: {printable(comparison.a.path)}", f"b: {printable(comparison.b.path)}")
    for row in file_rows(comparison):
        files.add_row(*row)
    console.print(files)
    for line in example_lines(comparison):
        console.print(printable(line))
    answers = make_table("", "")
    answers.add_row("the same text", rate_text(comparison.identical))
    answers.add_row("another finish reason", rate_text(comparison.finish_changed))
    for each in comparison.finish_reasons:
        if each.a != each.b:
            answers.add_row(printable(f"  {each.a} in a, {each.b} in b"), f"{each.count:,}")
    answers.add_row("failed in both", f"{comparison.failed_both:,}")
    answers.add_row("failed only in a, only in b", f"{comparison.failed_only_a:,}, {comparison.failed_only_b:,}")
    console.print(answers)
    differences = make_table(*DIFFERENCE_COLUMNS)
    for difference in comparison.differences:
        differences.add_row(*(printable(text) for text in difference_row(difference)))
    if comparison.differences:
        console.print(differences)
    _print_pairs(comparison)


def _print_pairs(comparison: Comparison) -> None:
    console = make_console()
    shown = comparison.most_different[:_PAIRS_ON_THE_TERMINAL]
    if not shown:
        return
    pairs = make_table("words differ most", "a", "b")
    for pair in shown:
        name = f"{', '.join(pair.key)} [{pair.sample}]"
        pairs.add_row(*(printable(text[:_LETTERS_ON_THE_TERMINAL]) for text in (name, pair.a.text, pair.b.text)))
    console.print(pairs)
