"""`mindgen batch merge`: the outputs of several jobs in one file. Needs no MindSpore."""

import argparse
from pathlib import Path

from mindgen.batch.rows_copy import merge_rows
from mindgen.batch.source import open_source
from mindgen.cli.batch_split import refuse_existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "outputs", nargs="+", metavar="OUTPUT",
        help="files, folders or patterns; the files go in the natural order of their names, 2 before 10",
    )  # fmt: skip
    add("--output", type=Path, required=True, metavar="FILE", help="the file to write")
    add("--overwrite", action="store_true", help="replace it if it is there")
    add("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Writes the file.

    Raises:
        MindgenError: a file cannot be read or written, or is there already; or they have other columns.
    """
    refuse_existing([arguments.output], arguments.overwrite)
    source = open_source(arguments.outputs, output=arguments.output)
    merge_rows(source, arguments.output)
    print(f"{arguments.output}: {source.num_rows} row(s) of {len(source.files)} file(s)")
    return 0
