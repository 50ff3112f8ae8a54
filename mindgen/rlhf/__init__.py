"""What a reinforcement-learning loop uses: generation in the shape of ChatLearn's module, log-probabilities of given
tokens, and weights for a running model, from this process (`LLM.update_weights`) or from another one.

The names below load lazily: importing them does not start MindSpore, and a trainer's process needs numpy alone to send.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindgen.rlhf.generation_module import GenerationModule as GenerationModule
    from mindgen.rlhf.module_settings import read_module_settings as read_module_settings
    from mindgen.rlhf.prompt_pipeline import PromptPipeline as PromptPipeline
    from mindgen.rlhf.receiver import WeightReceiver as WeightReceiver
    from mindgen.rlhf.scoring import score as score
    from mindgen.rlhf.sender import WeightSender as WeightSender
    from mindgen.rlhf.sender import WeightSendError as WeightSendError

    VLLMModule = GenerationModule

_HOMES = {
    "GenerationModule": ("generation_module", "GenerationModule"),
    "VLLMModule": ("generation_module", "GenerationModule"),  # as ChatLearn calls it
    "PromptPipeline": ("prompt_pipeline", "PromptPipeline"),
    "read_module_settings": ("module_settings", "read_module_settings"),
    "score": ("scoring", "score"),
    "WeightReceiver": ("receiver", "WeightReceiver"),
    "WeightSender": ("sender", "WeightSender"),
    "WeightSendError": ("sender", "WeightSendError"),
}
__all__ = [
    "GenerationModule",
    "PromptPipeline",
    "VLLMModule",
    "WeightReceiver",
    "WeightSendError",
    "WeightSender",
    "read_module_settings",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindgen.rlhf' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(import_module(f"mindgen.rlhf.{module}"), attribute)
