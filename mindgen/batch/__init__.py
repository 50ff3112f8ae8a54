"""Batch generation: files of prompts in, files of answers out, with nothing lost when it is killed.

The names below load lazily, so that a configuration can be made without starting MindSpore.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mindgen.batch.config import BatchConfig, InputColumns, ModelChoice, OutputOptions, PromptOptions

if TYPE_CHECKING:
    from mindgen.batch.iterate import AnsweredRow as AnsweredRow
    from mindgen.batch.iterate import iterate_batch as iterate_batch
    from mindgen.batch.run import run_batch as run_batch

_HOMES = {
    "AnsweredRow": "mindgen.batch.iterate",
    "iterate_batch": "mindgen.batch.iterate",
    "run_batch": "mindgen.batch.run",
}
__all__ = [
    "AnsweredRow",
    "BatchConfig",
    "InputColumns",
    "ModelChoice",
    "OutputOptions",
    "PromptOptions",
    "iterate_batch",
    "run_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindgen.batch' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
