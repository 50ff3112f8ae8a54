"""Text files that people write: prompts, configurations, grammars, templates."""

import codecs
from pathlib import Path

from mindgen.errors import MindgenError

_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def read_text_file(path: Path, error_class: type[MindgenError], what: str = "") -> str:
    """The text of a UTF-8 file, without the byte-order mark that some editors put before it; lines end with "\\n".

    Args:
        what: the contents' name in errors, like "the prompts in".

    Raises:
        error_class: the file is missing, cannot be read, or is not UTF-8.
    """
    name = f"{what} {path}".lstrip()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise error_class(f"cannot read {name}: {error.strerror}") from error
    if data.startswith(_OTHER_MARKS):
        raise error_class(f"cannot read {name}: it is UTF-16 or UTF-32 text; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise error_class(f"cannot read {name}: it is not UTF-8 text: {error}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
