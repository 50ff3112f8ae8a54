"""An engine with the texts around it: requests go in as text, and come back as chunks of text."""

import threading

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine import Engine
from mindgen.errors import as_request_error
from mindgen.loop.open_request import OpenRequest, PreparedRequest
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.text_turns import TextTurns
from mindgen.runner.profiling import Profile
from mindgen.sampling_params import SamplingParams
from mindgen.text.bad_words import bad_word_sequences
from mindgen.text.guided import GuidedCompiler, GuidedMatcher, read_guide
from mindgen.text.tokenizer import Tokenizer
from mindgen.weights.model_config import ModelConfig


class TextEngine:
    """Belongs to one thread, but for `prepare`, which any may call.

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
        self.engine = engine
        self._tokenizer = tokenizer
        self._model_config = model_config
        self._registry = registry
        self._on_missing_adapter = on_missing_adapter
        self._guides: GuidedCompiler | None = None
        self._guides_lock = threading.Lock()
        self._open: dict[int, OpenRequest] = {}
        self._turns = TextTurns()
        self.profile: Profile | None = None

    def prepare(self, asked: CheckedRequest) -> PreparedRequest:
        """What takes time, and needs no engine.

        Raises:
            MindgenError: the request is refused.
        """
        if asked.error is not None:
            raise asked.error
        token_ids, adapter_id = asked.token_ids, asked.adapter_id
        if token_ids is None:
            token_ids = self._tokenizer.encode(asked.prompt or "")
        warnings = []
        if self._on_missing_adapter == "base" and adapter_id is not None and adapter_id not in self._registry.names():
            warnings.append(f"unknown adapter_id {adapter_id!r}: answered by the base model")
            adapter_id = None
        bad_words = [list(word) for word in bad_word_sequences(self._tokenizer, asked.params.bad_words)]
        matcher = self._matcher(asked.params)
        return PreparedRequest(asked.prompt, token_ids, asked.params, adapter_id, matcher, bad_words, warnings)

    def _matcher(self, params: SamplingParams) -> GuidedMatcher | None:
        guide = read_guide(params.guided_json, params.guided_regex, params.guided_choice, params.guided_grammar)
        if guide is None:
            return None
        with self._guides_lock:
            if self._guides is None:
                config = self._model_config
                self._guides = GuidedCompiler(self._tokenizer, config.vocab_size, config.eos_token_ids)
            return self._guides.start(guide)

    def add(self, index: int, prepared: PreparedRequest, is_streamed: bool) -> OpenRequest:
        """Passes a request on to the engine.

        Raises:
            MindgenError: the request is refused.
            QueueFullError: the engine takes no more for now.
        """
        request = self.engine.add_request(
            prepared.token_ids, prepared.params, prepared.adapter_id, prepared.matcher, prepared.bad_words
        )
        opened = OpenRequest(index, prepared, request, self._tokenizer, is_streamed)
        self._open[request.request_id] = opened
        return opened

    def has_unfinished(self) -> bool:
        return self.engine.has_unfinished()

    def step(self) -> list[OpenRequest]:
        """Runs a step; the requests whose text was made have their chunks now."""
        changed = [self._open.get(request.request_id) for request in self.engine.step(self.profile)]
        # An end that came between two steps may have been told already.
        ready = self._turns.after_step(opened for opened in changed if opened is not None)
        return [self._advance(opened) for opened in ready]

    def make_rest(self) -> list[OpenRequest]:
        """The texts that wait for a later step."""
        return [self._advance(opened) for opened in self._turns.rest()]

    def _advance(self, opened: OpenRequest) -> OpenRequest:
        request = opened.request
        try:
            opened.advance(self.engine)
        except Exception as error:
            self.engine.fail(request, as_request_error(error, "making the request's text"))
            opened.advance(self.engine)
        if request.is_finished:
            del self._open[request.request_id]
            self._turns.forget(opened)
        return opened

    def cancel(self, opened: OpenRequest) -> None:
        self._turns.forget(opened)
        if self._open.pop(opened.request.request_id, None) is not None:
            self.engine.abort(opened.request)
