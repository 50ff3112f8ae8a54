"""What the server serves: the model with what tells it from others, and what goes with its tokens."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mindgen.engine.engine_config import EngineConfig
from mindgen.llm import LLM
from mindgen.loop.model_files import ModelFiles
from mindgen.server.generation.prompts import Prompts
from mindgen.server.generation.sampling import default_sampling
from mindgen.settings import GenerationSettings
from mindgen.text.chat_template import ChatTemplates, load_chat_templates


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What the base model is.

    Attributes:
        name: what clients call it.
        root: where it is.
        digest: of its content.
        created: when the server came to have it, in seconds since 1970.
    """

    name: str
    root: str
    digest: str
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def fingerprint(self) -> str:
        return f"mindgen-{self.digest}"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is loaded.

    Attributes:
        defaults: of sampling, for requests that say nothing else.
        vocab_size: token ids are below it.
        num_sequences: that are computed at once, by all replicas.
    """

    llm: LLM
    identity: ModelIdentity
    templates: ChatTemplates
    prompts: Prompts
    defaults: Mapping[str, Any]
    vocab_size: int
    num_sequences: int

    @classmethod
    def of(
        cls, llm: LLM, files: ModelFiles, name: str, generation: GenerationSettings, config: EngineConfig
    ) -> "ServedModel":
        """
        Args:
            files, config: that the model was loaded from and with.
            generation: what holds for requests that say nothing else.
        """
        vocab_size = files.model_config().vocab_size
        templates = load_chat_templates(files.folder, llm.tokenizer.special_tokens)
        prompts = Prompts(llm.tokenizer, templates, llm.max_model_len, vocab_size)
        identity = ModelIdentity(name, str(files.model), files.model_digest(config.ranks_per_replica))
        num_sequences = config.max_num_seqs * config.data_parallel_size
        defaults = default_sampling(generation)
        return cls(llm, identity, templates, prompts, defaults, vocab_size, num_sequences)
