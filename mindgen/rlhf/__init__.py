"""What a reinforcement-learning loop uses: generation in the shape of ChatLearn's module, log-probabilities of given
tokens, and weights for a running model, from this process (`LLM.update_weights`) or from another one.

The names below load lazily: importing them does not start MindSpore, and a trainer's process needs numpy alone to send.
"""

from typing import TYPE_CHECKING

from mindgen.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mindgen.rlhf.generation_client import GenerationClient as GenerationClient
    from mindgen.rlhf.generation_module import GenerationModule as GenerationModule
    from mindgen.rlhf.generation_module import VLLMModule as VLLMModule
    from mindgen.rlhf.module_settings import read_module_settings as read_module_settings
    from mindgen.rlhf.prompt_pipeline import PromptPipeline as PromptPipeline
    from mindgen.rlhf.receiver import WeightReceiver as WeightReceiver
    from mindgen.rlhf.scoring import score as score
    from mindgen.rlhf.sender import WeightSender as WeightSender
    from mindgen.rlhf.sender import WeightSendError as WeightSendError

_HOMES = {
    "GenerationClient": "mindgen.rlhf.generation_client",
    "GenerationModule": "mindgen.rlhf.generation_module",
    "VLLMModule": "mindgen.rlhf.generation_module",
    "PromptPipeline": "mindgen.rlhf.prompt_pipeline",
    "read_module_settings": "mindgen.rlhf.module_settings",
    "score": "mindgen.rlhf.scoring",
    "WeightReceiver": "mindgen.rlhf.receiver",
    "WeightSender": "mindgen.rlhf.sender",
    "WeightSendError": "mindgen.rlhf.sender",
}
__all__ = [
    "GenerationClient",
    "GenerationModule",
    "PromptPipeline",
    "VLLMModule",
    "WeightReceiver",
    "WeightSendError",
    "WeightSender",
    "read_module_settings",
    "score",
]

__getattr__ = lazy_names(__name__, _HOMES)
