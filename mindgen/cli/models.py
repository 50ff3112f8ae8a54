"""`mindgen models`: which models were fetched, and what they take."""

import argparse

from mindgen.cli.tables import make_console, make_table
from mindgen.store.cached import cached_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Prints a line for each, and those that `mindgen pull` knows besides."""
    listed = make_table("model", "MB", "from", "path")
    for model in cached_models():
        size = f"{model.num_bytes / 1e6:.1f}" if model.num_bytes else "not fetched"
        listed.add_row(model.name, size, model.origin, str(model.path) if model.num_bytes else "-")
    make_console().print(listed)
    return 0
