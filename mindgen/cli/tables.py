"""Tables in a terminal, or in a file."""

import sys

from rich.console import Console
from rich.table import Table

_WIDTH = 140  # where there is no terminal to ask


def make_table(*columns: str) -> Table:
    """With a heading unless all columns are nameless."""
    made = Table(show_header=any(columns))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def make_console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH, soft_wrap=False, markup=False, highlight=False)


def printable(text: str) -> str:
    """A stranger's text in one line, which does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
