"""What a job needs of a model; an LLM has it, and tests of what surrounds the model bring their own."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mindgen.adapters.formats.peft import read_adapter
from mindgen.adapters.registry import AdapterRegistry
from mindgen.batch.config import BatchConfig
from mindgen.engine.metrics import EngineMetrics
from mindgen.llm import LLM
from mindgen.loop.model_files import ModelFiles
from mindgen.loop.stream import Server


class BatchModel(Protocol):
    """A model that answers.

    Attributes:
        digest: of its configuration, tokenizer and weights.
        dtype: that it computes in.
        num_slots: sequences that it computes at once, of all replicas.
        max_model_len: tokens of prompt and output together, at most.
    """

    server: Server
    digest: str
    dtype: str
    num_slots: int
    max_model_len: int

    def encode(self, text: str) -> list[int]: ...

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> dict[str, Any]:
        """{"prompt": its text, "prompt_token_ids": [...]}, of a conversation."""

    def adapter_digest(self, adapter_id: str) -> str:
        """Of the adapter's content; raises UnknownAdapterError or AdapterError where there is none to be served."""

    def metrics(self) -> EngineMetrics | None:
        """A moment of the engine of this process; None where it has none."""

    def close(self) -> None: ...


class ModelOpener(Protocol):
    """A model that need not be loaded to be known.

    Attributes:
        digest: of its configuration, tokenizer and weights.
    """

    digest: str

    def adapter_digest(self, adapter_id: str) -> str:
        """Of the adapter's content; raises UnknownAdapterError or AdapterError where there is none to be served."""

    def open(self) -> BatchModel: ...


class AdapterDigests:
    """The digests of adapters' contents, each read once."""

    def __init__(self, registry: AdapterRegistry) -> None:
        self._registry = registry
        self._digests: dict[str, str] = {}

    def of(self, adapter_id: str) -> str:
        """Raises UnknownAdapterError or AdapterError where there is none to be served."""
        if adapter_id not in self._digests:
            self._digests[adapter_id] = read_adapter(self._registry.get(adapter_id).folder).digest
        return self._digests[adapter_id]


class ConfiguredModel:
    """The model of a configuration, as a ModelOpener."""

    def __init__(self, config: BatchConfig) -> None:
        self._config = config
        self._files = ModelFiles.of(config.model.path, config.model.adapters, config.model.checkpoint)
        self.digest = self._files.content_digest(config.engine.ranks_per_replica)
        self._adapters = AdapterDigests(self._files.registry())

    def adapter_digest(self, adapter_id: str) -> str:
        return self._adapters.of(adapter_id)

    def open(self) -> BatchModel:
        choice, engine = self._config.model, self._config.engine
        llm = LLM(choice.path, choice.adapters, choice.dtype, engine, choice.on_missing_adapter, choice.checkpoint)
        return LoadedModel(llm, self.digest, self._adapters, engine.max_num_seqs * engine.data_parallel_size)


class LoadedModel:
    """An LLM as a BatchModel."""

    def __init__(self, llm: LLM, digest: str, adapters: AdapterDigests, num_slots: int) -> None:
        self._llm, self._adapters = llm, adapters
        self.digest = digest
        self.server = llm.server
        self.dtype = llm.dtype
        self.num_slots = num_slots
        self.max_model_len = llm.max_model_len

    def encode(self, text: str) -> list[int]:
        return self._llm.encode(text)

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> dict[str, Any]:
        return self._llm.chat_prompt(messages, **variables)

    def adapter_digest(self, adapter_id: str) -> str:
        return self._adapters.of(adapter_id)

    def metrics(self) -> EngineMetrics | None:
        return self._llm.metrics()

    def close(self) -> None:
        self._llm.close()
