"""Pages of one file, which load nothing from elsewhere; whatever text they are given is text."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mindgen.system.atomic import whole_file

_TEMPLATES = Path(__file__).with_name("templates")


def make_page(template: str, values: dict[str, Any]) -> str:
    """A template of this folder with its values; only Markup goes in as it is."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(values)


def write_page(path: Path, page: str) -> None:
    """
    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="backslashreplace")  # lone surrogates
