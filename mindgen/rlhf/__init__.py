"""Generation inside a reinforcement-learning loop, in the shape of ChatLearn's module.

The names below load lazily, so that importing them does not start MindSpore.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindgen.rlhf.generation_module import GenerationModule as GenerationModule
    from mindgen.rlhf.module_settings import read_module_settings as read_module_settings
    from mindgen.rlhf.prompt_pipeline import PromptPipeline as PromptPipeline
    from mindgen.rlhf.scoring import score as score

    VLLMModule = GenerationModule

_HOMES = {
    "GenerationModule": ("mindgen.rlhf.generation_module", "GenerationModule"),
    "VLLMModule": ("mindgen.rlhf.generation_module", "GenerationModule"),  # as ChatLearn calls it
    "PromptPipeline": ("mindgen.rlhf.prompt_pipeline", "PromptPipeline"),
    "read_module_settings": ("mindgen.rlhf.module_settings", "read_module_settings"),
    "score": ("mindgen.rlhf.scoring", "score"),
}
__all__ = ["GenerationModule", "PromptPipeline", "VLLMModule", "read_module_settings", "score"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindgen.rlhf' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
