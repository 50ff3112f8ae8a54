"""JSON files that people and other tools write."""

import json
from pathlib import Path
from typing import Any

from mindgen.errors import MindgenError
from mindgen.system.text_file import read_text_file

_MAX_BYTES = 100_000_000


def read_json_object(path: Path, error_class: type[MindgenError], max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        error_class: the file is missing or too large, is not JSON, holds something else, or names a key twice.
    """
    try:
        if path.stat().st_size > max_bytes or not path.is_file():
            raise error_class(f"{path} is larger than {max_bytes} bytes, or no regular file")
        value = json.loads(read_text_file(path, error_class), object_pairs_hook=with_unique_keys)
    except OSError as error:
        raise error_class(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise error_class(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise error_class(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object_pairs_hook of json.loads that raises ValueError for a key that is there twice."""
    keys = [key for key, _ in pairs]
    repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands there more than once")
    return dict(pairs)
