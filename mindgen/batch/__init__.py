"""Batch generation: files of prompts in, files of answers out, with nothing lost when it is killed.

The names below load lazily, so that a configuration can be made without starting MindSpore.
"""

from typing import TYPE_CHECKING

from mindgen.batch.config import BatchConfig, InputColumns, ModelChoice, OutputOptions, PromptOptions
from mindgen.system.lazy_names import lazy_names

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

__getattr__ = lazy_names(__name__, _HOMES)
