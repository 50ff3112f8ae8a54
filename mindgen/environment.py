"""The one module that reads or sets environment variables and process-wide state."""

import os
import sys
from pathlib import Path

_OP_PLUGIN = "MS_OP_PLUGIN_PATH"


def set_op_plugin(path: str) -> None:
    """Tells MindSpore, which must not be imported yet, where the CPU op plugin is."""
    os.environ[_OP_PLUGIN] = path


def op_plugin() -> str | None:
    """The CPU op plugin that MindSpore was told of, or None."""
    return os.environ.get(_OP_PLUGIN)


def quiet_mindspore() -> None:
    """Keeps MindSpore's C++ log quiet unless the user has chosen a level; its errors come as exceptions as well."""
    os.environ.setdefault("GLOG_v", "4")


def is_mindspore_imported() -> bool:
    return "mindspore" in sys.modules


def cache_folder() -> Path:
    """Where compiled code is kept: $MINDGEN_CACHE, or mindgen in the user's cache folder."""
    given = os.environ.get("MINDGEN_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindgen"
