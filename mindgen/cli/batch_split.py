"""`mindgen batch split`: the rows of an input in several files, for jobs of their own. Needs no MindSpore."""

import argparse
from pathlib import Path

from mindgen.batch.rows_copy import split_rows
from mindgen.batch.source import open_source
from mindgen.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="a file, a folder, a pattern, or several, as of a job")
    add("--input", nargs="+", dest="named_inputs", default=[], metavar="INPUT", help="the same")
    add("--chunks", type=int, required=True, metavar="N", help="how many files")
    add("--output", metavar="PATTERN", help="their names, with {} for 1 to N (default: chunk_{} and INPUT's ending)")
    add("--overwrite", action="store_true", help="replace files that are there")
    add("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Writes the files, and prints their names.

    Raises:
        MindgenError: a file cannot be read or written, or is there already.
    """
    inputs = [*arguments.inputs, *arguments.named_inputs]
    if not inputs or arguments.chunks < 1:
        raise UsageError("name the input to split, and with --chunks how many files, at least 1")
    source = open_source(inputs)
    pattern = arguments.output or f"chunk_{{}}{source.files[0].path.suffix}"
    if "{}" not in pattern:
        raise UsageError(f"--output must have {{}} where the numbers go, like chunk_{{}}.parquet, not {pattern!r}")
    paths = [Path(pattern.replace("{}", str(number))) for number in range(1, arguments.chunks + 1)]
    refuse_existing(paths, arguments.overwrite)
    split_rows(source, paths)
    print("\n".join(map(str, paths)))
    return 0


def refuse_existing(paths: list[Path], may_overwrite: bool) -> None:
    """Raises UsageError where one is there and may not be replaced."""
    for path in paths:
        if path.exists() and not may_overwrite:
            raise UsageError(f"{path} is there already: name another file, or say --overwrite")
