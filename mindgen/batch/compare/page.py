"""A comparison as a page."""

from pathlib import Path

from mindgen.batch.compare.comparison import Comparison
from mindgen.batch.compare.figures import DIFFERENCE_COLUMNS, difference_row, example_lines, file_rows, rate_text
from mindgen.batch.html_page import make_page, write_page


def write_comparison_page(path: Path, comparison: Comparison, mindgen_version: str) -> None:
    """
    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    write_page(path, make_comparison_page(comparison, mindgen_version))


def make_comparison_page(comparison: Comparison, mindgen_version: str) -> str:
    """A page of HTML that is whole in itself."""
    return make_page("compare.html", {
        "title": f"{Path(comparison.a.path).name} and {Path(comparison.b.path).name}",
        "mindgen_version": mindgen_version,
        "comparison": comparison,
        "identical": rate_text(comparison.identical),
        "finish_changed": rate_text(comparison.finish_changed),
        "files": file_rows(comparison),
        "examples": example_lines(comparison),
        "columns": DIFFERENCE_COLUMNS,
        "differences": [difference_row(each) for each in comparison.differences],
    })  # fmt: skip
