"""ChatLearn's YAML files: `includes:` of others, and ${name:default} of the environment."""

import re
from pathlib import Path
from typing import Any

import yaml

from mindgen.errors import ConfigError, warn
from mindgen.system.environment import environment_variable
from mindgen.system.yaml_file import read_yaml_file

_VARIABLE = re.compile(r"\$\{(\w+)(?::([^{}]*))?\}")
_INCLUDES = "includes"
_MOST_NESTED = 32


def read_module_yaml(path: Path) -> dict[str, Any]:
    """The keys of a file and of those that it includes, whose keys its own go before, as a later one's before an
    earlier one's.

    ${name} is the environment variable, ${name:default} the default where that is not set. A value that is one such
    expression is read as YAML, so ${top_k:-1} is a number; None is null. Keys whose variable is not set and has no
    default are left out, and named once.

    Raises:
        ConfigError: a file is missing, no YAML of keys and values, includes itself, or has an expression that is none.
    """
    unset: list[str] = []
    found = _read(path, (), unset)
    if unset:
        warn(f"{path}: left out, as their environment variables are not set: {', '.join(unset)}")
    return found


def _read(path: Path, above: tuple[Path, ...], unset: list[str]) -> dict[str, Any]:
    own = path.resolve()
    if own in above or len(above) == _MOST_NESTED:
        raise ConfigError(f"{path} includes itself, or more than {_MOST_NESTED} files lie in one another")
    raw = read_yaml_file(path)
    included = raw.pop(_INCLUDES, None) or []
    if not isinstance(included, list) or not all(isinstance(each, str) for each in included):
        raise ConfigError(f"{path}: {_INCLUDES} must be a list of files, not {included!r}")
    found: dict[str, Any] = {}
    for each in included:
        name = _resolved(path, _INCLUDES, each)
        if not isinstance(name, str):
            raise ConfigError(f"{path}: {_INCLUDES}: {each!r} names no file: its environment variable is not set")
        found |= _read(path.parent / name, (*above, own), unset)
    for key, value in raw.items():
        if not isinstance(key, str):
            raise ConfigError(f"{path}: a key must be a name, not {key!r}")
        resolved = _resolved(path, key, value)
        if resolved is _UNSET:
            unset.append(key)
        else:
            found[key] = resolved
    return found


_UNSET = object()


def _resolved(path: Path, key: str, value: Any) -> Any:
    if value == "None":
        return None
    if isinstance(value, list):
        found = [_resolved(path, key, each) for each in value]
        if any(each is _UNSET for each in found):
            raise ConfigError(f"{path}: {key}: an item of {value!r} needs an environment variable that is not set")
        return found
    if isinstance(value, dict) and "${" in str(value):
        raise ConfigError(f"{path}: {key}: ${{name}} may stand in a value or a list, not within {value!r}")
    if not isinstance(value, str) or "${" not in value:
        return value
    if len(_VARIABLE.findall(value)) != value.count("${"):
        raise ConfigError(f"{path}: {key}: {value!r} must be like ${{name}} or ${{name:default}}")
    names = [name for name, default in _VARIABLE.findall(value) if environment_variable(name) is None and not default]
    if names and _VARIABLE.fullmatch(value):
        return None if f"${{{names[0]}:" in value else _UNSET
    if names:
        raise ConfigError(f"{path}: {key}: {value!r} needs the environment variable {names[0]}, which is not set")
    text = _VARIABLE.sub(lambda match: environment_variable(match[1]) or match[2], value)
    return _plain_value(text) if _VARIABLE.fullmatch(value) else text


def _plain_value(text: str) -> Any:
    """A number, a truth or None where the text is one."""
    if text == "None":
        return None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, int | float) or value is None else text
