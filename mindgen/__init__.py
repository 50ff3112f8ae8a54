"""mindgen: text generation for MindSpore, one base model and many LoRA adapters in one batch.

The names below load lazily, so that `from mindgen import SamplingParams` does not start MindSpore.
"""

from typing import TYPE_CHECKING

from mindgen.kernels import plugin
from mindgen.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mindgen.compat.mindformers import AutoModel as AutoModel
    from mindgen.compat.mindformers import AutoTokenizer as AutoTokenizer
    from mindgen.compat.streamers import AsyncTextIteratorStreamer as AsyncTextIteratorStreamer
    from mindgen.compat.streamers import TextIteratorStreamer as TextIteratorStreamer
    from mindgen.compat.streamers import TextStreamer as TextStreamer
    from mindgen.llm import LLM as LLM
    from mindgen.outputs import CompletionOutput as CompletionOutput
    from mindgen.outputs import RequestOutput as RequestOutput
    from mindgen.sampling_params import SamplingParams as SamplingParams

_HOMES = {
    "LLM": "mindgen.llm",
    "AutoModel": "mindgen.compat.mindformers",
    "AutoTokenizer": "mindgen.compat.mindformers",
    "SamplingParams": "mindgen.sampling_params",
    "RequestOutput": "mindgen.outputs",
    "CompletionOutput": "mindgen.outputs",
    "TextStreamer": "mindgen.compat.streamers",
    "TextIteratorStreamer": "mindgen.compat.streamers",
    "AsyncTextIteratorStreamer": "mindgen.compat.streamers",
}
__all__ = [
    "LLM",
    "AsyncTextIteratorStreamer",
    "AutoModel",
    "AutoTokenizer",
    "CompletionOutput",
    "RequestOutput",
    "SamplingParams",
    "TextIteratorStreamer",
    "TextStreamer",
]

# MindSpore reads the plugin's path once, before its first op; so it must be set as early as this.
plugin.announce()

__getattr__ = lazy_names(__name__, _HOMES)
