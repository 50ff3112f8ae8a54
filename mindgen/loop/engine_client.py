"""Between prompts and the engine: requests go in as text, and come back as chunks of text, from any thread."""

import threading
from collections.abc import Sequence

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine import Engine
from mindgen.engine.metrics import EngineMetrics
from mindgen.errors import as_request_error
from mindgen.loop.open_request import OpenRequest
from mindgen.loop.request_reader import CheckedRequest
from mindgen.runner.profiling import Profile
from mindgen.sampling_params import SamplingParams
from mindgen.text.bad_words import bad_word_sequences
from mindgen.text.guided import GuidedCompiler, GuidedMatcher, read_guide
from mindgen.text.tokenizer import Tokenizer
from mindgen.weights.model_config import ModelConfig


class EngineClient:
    """An engine with the texts around it, one caller at a time.

    Args:
        on_missing_adapter: "error", or "base" to let the base model answer for an unknown adapter, marked as such.

    Attributes:
        profile: what records the steps; None for nothing.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        model_config: ModelConfig,
        registry: AdapterRegistry,
        on_missing_adapter: str,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._model_config = model_config
        self._registry = registry
        self._on_missing_adapter = on_missing_adapter
        self._guides: GuidedCompiler | None = None
        self._open: dict[int, OpenRequest] = {}
        self._lock = threading.Lock()  # of all that is above
        self.profile: Profile | None = None

    def metrics(self) -> EngineMetrics:
        with self._lock:
            return self._engine.metrics()

    def reset_prefix_cache(self) -> None:
        with self._lock:
            self._engine.reset_prefix_cache()

    def submit(self, index: int, asked: CheckedRequest, is_streamed: bool) -> OpenRequest:
        """Passes a request on to the engine.

        Raises:
            MindgenError: the request is refused.
            QueueFullError: the engine takes no more for now.
        """
        if asked.error is not None:
            raise asked.error
        params, adapter_id = asked.params, asked.adapter_id
        token_ids = asked.token_ids
        if token_ids is None:
            token_ids = self._tokenizer.encode(asked.prompt or "")
        warnings = []
        if self._on_missing_adapter == "base" and adapter_id is not None and adapter_id not in self._registry.names():
            warnings.append(f"unknown adapter_id {adapter_id!r}: answered by the base model")
            adapter_id = None
        matcher = self._matcher(params)
        bad_words = [list(word) for word in bad_word_sequences(self._tokenizer, params.bad_words)]
        with self._lock:
            request = self._engine.add_request(token_ids, params, adapter_id, matcher, bad_words)
            opened = OpenRequest(index, asked.prompt, request, self._engine, self._tokenizer, warnings, is_streamed)
            self._open[request.request_id] = opened
        return opened

    def _matcher(self, params: SamplingParams) -> GuidedMatcher | None:
        guide = read_guide(params.guided_json, params.guided_regex, params.guided_choice, params.guided_grammar)
        if guide is None:
            return None
        if self._guides is None:
            config = self._model_config
            self._guides = GuidedCompiler(self._tokenizer, config.vocab_size, config.eos_token_ids)
        return self._guides.start(guide)

    def step(self, waiting: Sequence[OpenRequest]) -> None:
        """Runs a step of the engine, unless one of these requests has something new already."""
        with self._lock:
            if any(each.chunks for each in waiting):
                return
            for request in self._engine.step(self.profile):
                opened = self._open[request.request_id]
                try:
                    opened.advance()
                except Exception as error:
                    self._engine.fail(request, as_request_error(error, "making the request's text"))
                    opened.advance()
                if request.is_finished:
                    del self._open[request.request_id]

    def cancel(self, opened: OpenRequest) -> None:
        with self._lock:
            if self._open.pop(opened.request.request_id, None) is not None:
                self._engine.abort(opened.request)
