"""`mindgen inspect`: what a file or folder is, and whether mindgen serves it."""

import argparse

from mindgen.cli.tables import make_console, make_table
from mindgen.store.inspection import inspect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a model's folder or file, or another name that --model takes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Prints the facts; 1 if it is not served.

    Raises:
        MindgenError: there is nothing to look at, or it is damaged.
    """
    found = inspect(arguments.path)
    facts = make_table("", "")
    for name, text in found.facts.items():
        facts.add_row(name, text)
    facts.add_row("served", "yes" if not found.problems else "no: " + "; ".join(found.problems))
    make_console().print(facts)
    return 1 if found.problems else 0
