"""YAML files that people write."""

from pathlib import Path
from typing import Any

import yaml

from mindgen.errors import ConfigError
from mindgen.system.text_file import read_text_file


def read_yaml_file(path: Path) -> dict[str, Any]:
    """What a configuration file holds; raises ConfigError where it cannot be read, or holds no keys and values."""
    try:
        raw = yaml.safe_load(read_text_file(path, ConfigError, "the configuration"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if raw is not None and not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(raw).__name__}")
    return raw or {}
