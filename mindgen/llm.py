"""The offline API: text in, text out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mindgen import demo
from mindgen.adapters.registry import LIST_FILE, AdapterRegistry
from mindgen.checkpoint.hf import map_weights, model_folder
from mindgen.engine.config import EngineConfig
from mindgen.engine.engine import Engine
from mindgen.engine.sequence import Sequence as EngineSequence
from mindgen.errors import ConfigError, RequestError
from mindgen.kernels import plugin
from mindgen.kernels.library import DType
from mindgen.model_config import read_model_config
from mindgen.outputs import CompletionOutput, RequestOutput, TextChunk
from mindgen.profiling import Profile
from mindgen.sampling_params import SamplingParams
from mindgen.tokenizer import IncrementalDetokenizer, load_tokenizer

_DTYPES = ("auto", "bfloat16", "float16", "float32")


class LLM:
    """A model with its adapters, ready to generate.

    Args:
        model: a Hugging Face folder, or "demo" for the embedded model.
        adapters: a lora_adapter.json or the folder that holds it; None takes the one in the model's folder, if any,
            and the demo's own for the demo.
        dtype: "bfloat16", "float16", "float32" (slow, for debugging), or "auto" for the checkpoint's own.
        config: the engine's limits.
        on_missing_adapter: "error", or "base" to let the base model answer for an unknown adapter, marked as such.

    Raises:
        MindgenError: the model or the adapter list cannot be served; the message says why.
    """

    def __init__(
        self,
        model: str = demo.NAME,
        adapters: str | Path | None = None,
        dtype: str = "auto",
        config: EngineConfig | None = None,
        on_missing_adapter: str = "error",
    ) -> None:
        if dtype not in _DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
        if on_missing_adapter not in ("error", "base"):
            raise ConfigError(f"on_missing_adapter must be error or base, not {on_missing_adapter!r}")
        folder = demo.model_folder() if model == demo.NAME else model_folder(Path(model))
        model_config = read_model_config(folder)
        self._on_missing_adapter = on_missing_adapter
        self._tokenizer = load_tokenizer(folder)
        registry = _registry(model, folder, adapters)
        dtype = _checkpoint_dtype(folder) if dtype == "auto" else dtype
        self._engine = Engine(folder, model_config, registry, dtype, config or EngineConfig())
        self._registry = registry
        self._dtype = dtype
        self._profile: Profile | None = None

    def generate(
        self,
        prompts: str | Sequence[str],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapter_ids: str | Sequence[str | None] | None = None,
    ) -> list[RequestOutput]:
        """The finished outputs of the prompts, in their order.

        Args:
            sampling_params: one for all, or one for each prompt.
            adapter_ids: one for all, or one for each prompt; None is the base model.

        Raises:
            RequestError: a prompt cannot be served; none is then generated.
            UnknownAdapterError: an adapter is not registered.
            AdapterError: an adapter cannot be served.
        """
        outputs = {chunk.index: chunk.output for chunk in self.stream(prompts, sampling_params, adapter_ids)}
        return [output for _, output in sorted(outputs.items()) if output is not None]

    def stream(
        self,
        prompts: str | Sequence[str],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapter_ids: str | Sequence[str | None] | None = None,
    ) -> Iterator[TextChunk]:
        """As `generate`, but yields text as it comes; the chunks of an index joined are its final text."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        params = _for_each(prompts, sampling_params or SamplingParams(), "sampling_params")
        adapters = _for_each(prompts, adapter_ids, "adapter_ids")
        open_requests: dict[int, _OpenRequest] = {}
        if self._engine.has_unfinished():
            raise RequestError("another stream of this LLM is still open: read it to its end or close it first")
        try:
            for index, arguments in enumerate(zip(prompts, params, adapters, strict=True)):
                request = self._open(index, *arguments)
                open_requests[request.sequence.request_id] = request
            while open_requests:
                for sequence in self._engine.step(self._profile):
                    request = open_requests[sequence.request_id]
                    text, output = request.advance(), None
                    if sequence.finish_reason is not None:
                        output = request.output(self._engine.adapter_digest(sequence.adapter_id))
                        del open_requests[sequence.request_id]
                    yield TextChunk(request.index, text, output)
        finally:  # also when the caller stops listening
            for request in open_requests.values():
                self._engine.abort(request.sequence)

    @contextmanager
    def profile(self) -> Iterator[Profile]:
        """Records where the time of all steps goes until it is left."""
        profile = Profile(plugin.load(), DType[self._dtype.upper()])
        self._profile = profile
        try:
            with profile.recording():
                yield profile
        finally:
            self._profile = None

    def encode(self, text: str) -> list[int]:
        """The token ids of a prompt, special tokens included."""
        return self._tokenizer.encode(text)

    def _open(self, index: int, prompt: str, params: SamplingParams, adapter_id: str | None) -> "_OpenRequest":
        if not prompt:
            raise RequestError(f"prompt {index} is empty: expected some text")
        warnings = []
        if self._on_missing_adapter == "base" and adapter_id is not None and adapter_id not in self._registry.names():
            warnings.append(f"unknown adapter_id {adapter_id!r}: answered by the base model")
            adapter_id = None
        token_ids = self._tokenizer.encode(prompt)
        try:
            sequence = self._engine.add_request(token_ids, params, adapter_id)
        except RequestError as error:
            raise RequestError(f"prompt {index}: {error}") from error
        return _OpenRequest(index, prompt, sequence, IncrementalDetokenizer(self._tokenizer, token_ids), warnings)


class _OpenRequest:
    """A request in the engine, with the text that it has given so far."""

    def __init__(
        self,
        index: int,
        prompt: str,
        sequence: EngineSequence,
        detokenizer: IncrementalDetokenizer,
        warnings: list[str],
    ) -> None:
        self.index = index
        self.sequence = sequence
        self._prompt = prompt
        self._detokenizer = detokenizer
        self._warnings = warnings
        self._text = ""

    def advance(self) -> str:
        """The text of the newest token."""
        text = self._detokenizer.append(self.sequence.token_ids[-1:])
        if self.sequence.finish_reason is not None:
            text += self._detokenizer.flush()
        self._text += text
        return text

    def output(self, adapter_digest: str | None) -> RequestOutput:
        sequence = self.sequence
        completion = CompletionOutput(0, self._text, sequence.output_token_ids, sequence.finish_reason)
        return RequestOutput(
            request_id=sequence.request_id,
            prompt=self._prompt,
            prompt_token_ids=sequence.token_ids[: sequence.prompt_len],
            outputs=[completion],
            finished=True,
            metrics=sequence.metrics,
            adapter_id=sequence.adapter_id,
            adapter_digest=adapter_digest,
            warnings=self._warnings,
        )


def _registry(model: str, folder: Path, adapters: str | Path | None) -> AdapterRegistry:
    if adapters is not None:
        return AdapterRegistry.from_json(Path(adapters))
    if model == demo.NAME:
        return AdapterRegistry.from_json(demo.adapter_folder())
    return AdapterRegistry.from_json(folder) if (folder / LIST_FILE).is_file() else AdapterRegistry({})


def _checkpoint_dtype(folder: Path) -> str:
    """The dtype of most of the checkpoint's tensors."""
    names = [tensor.dtype for tensor in map_weights(folder).values() if tensor.dtype in _DTYPES]
    if not names:
        raise ConfigError(f"{folder}: the checkpoint has no tensor in bfloat16, float16 or float32")
    return max(set(names), key=names.count)


def _for_each(prompts: list[str], values: Any, name: str) -> list[Any]:
    """One value for each prompt, from a single one or a list."""
    if not isinstance(values, (list, tuple)):
        return [values] * len(prompts)
    if len(values) != len(prompts):
        raise RequestError(f"{name} has {len(values)} entries for {len(prompts)} prompts")
    return list(values)
