"""The offline API: prompts in, texts out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.limits import read_limits
from mindgen.engine.memory_plan import MemoryPlan
from mindgen.engine.metrics import EngineMetrics
from mindgen.errors import ConfigError, MindgenError, RequestError, WorkerFinished
from mindgen.kernels import plugin
from mindgen.kernels.dtypes import DTYPE_CHOICES
from mindgen.kernels.library import DType
from mindgen.loop.changing_weights import ChangingWeights
from mindgen.loop.local_model import LocalModel
from mindgen.loop.local_replicas import local_numbers, replica_config
from mindgen.loop.model_files import DEFAULT_MODEL, AdapterPaths, ModelFiles, ModelSetup, adapter_folder
from mindgen.loop.node_service import meet_nodes, verdict
from mindgen.loop.replicas import Replicas, ReplicaState
from mindgen.loop.request_reader import CheckedRequest, Prompt, read_requests
from mindgen.loop.roles import serve_if_worker
from mindgen.loop.stream import ChunkStream, Server
from mindgen.outputs import RequestOutput
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.runner.profiling import Profile
from mindgen.sampling_params import SamplingParams
from mindgen.system.checks import shown, to_token_ids
from mindgen.text.chat_template import ChatTemplates, load_chat_templates
from mindgen.text.tokenizer import Tokenizer

Message: TypeAlias = Mapping[str, Any]

_OWN_ARGUMENTS = ("model", "adapters", "dtype", "config", "on_missing_adapter", "checkpoint")


class LLM(ChangingWeights):
    """A model with its adapters, ready to generate. Several streams may be read at once, from several threads.

    Args:
        model: a folder like Hugging Face's, a .gguf or .pt file, a model that `mindgen pull` has fetched, one of a
            hub, or an embedded one, "demo" or "gpt2".
        adapters: a lora_adapter.json or the folder that holds it, or a dict of names and folders; None takes the list
            in the model's folder, if any, and the demo's own for the demo.
        dtype: "bfloat16", "float16", "float32" (slow, for debugging), or "auto" for the checkpoint's own.
        config: the engine's limits.
        on_missing_adapter: "error", or "base" to let the base model answer for an unknown adapter, marked as such.
        checkpoint: the folder of the weights, or of a rank_N for each rank, where the model's folder has only the rest.
        limits: those of EngineConfig one by one, like max_num_seqs=8, instead of config.

    With nnodes above 1 every machine runs the same program. Where node_rank is above 0 this serves the machine whose
    node_rank is 0 to its end, which is `close()` or the end of the program there. So does a rank above 0 of as many as
    a launcher has started and the model has; a model of one rank is each process's own.

    Raises:
        WorkerFinished: this process has served another one to its end; a SystemExit, which need not be caught.
        MindgenError: the model or the adapter list cannot be served; the message says why.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        adapters: AdapterPaths | None = None,
        dtype: str = "auto",
        config: EngineConfig | None = None,
        on_missing_adapter: str = "error",
        checkpoint: str | Path | None = None,
        **limits: Any,
    ) -> None:
        if dtype not in DTYPE_CHOICES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPE_CHOICES)}, not {dtype!r}")
        if on_missing_adapter not in ("error", "base"):
            raise ConfigError(f"on_missing_adapter must be error or base, not {on_missing_adapter!r}")
        if config is not None and limits:
            raise ConfigError(f"config holds the engine's limits: do not pass {', '.join(limits)} as well")
        config = config or read_limits(limits, _OWN_ARGUMENTS)
        files = ModelFiles.of(model, adapters, checkpoint)
        exit_code = serve_if_worker(files, config)
        if exit_code is not None:
            raise WorkerFinished(exit_code)
        self._nodes: OtherNodes | None = meet_nodes(files, config) if config.nnodes > 1 else None
        try:
            self._load(files, ModelSetup(dtype, config, on_missing_adapter))
        except BaseException as error:
            if self._nodes is not None:
                self._nodes.close(*verdict(error))
            raise
        self._templates: ChatTemplates | None = None

    def _load(self, files: ModelFiles, setup: ModelSetup) -> None:
        config, nodes = setup.config, self._nodes
        self._replicas: Replicas | None = None
        if config.data_parallel_size > 1:
            local = local_numbers(config, nodes)
            setup = replace(setup, config=replica_config(config, len(local)))
            self._replicas = Replicas(local, nodes, files, setup)
            nodes = None
        self._model = LocalModel(files, setup, nodes)
        self.tokenizer: Tokenizer = self._model.tokenizer
        self._server: Server = self._model.loop
        if self._replicas is not None:
            self._replicas.wait_until_ready()
            self._server = self._replicas.supervise(self._model.loop, self._model.registry)

    @property
    def memory_plan(self) -> MemoryPlan:
        return self._model.memory_plan

    @property
    def server(self) -> Server:
        """What serves the requests of all replicas, for who keeps many calls open at once."""
        return self._server

    @property
    def dtype(self) -> str:
        return self._model.dtype

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and output together, at most."""
        return self._model.longest_sequence

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """What ends an output, by the model's own configuration."""
        return self._model.config.eos_token_ids

    @property
    def adapter_ids(self) -> list[str]:
        return self._model.registry.names()

    def add_adapter(self, adapter_id: str, folder: str | Path) -> None:
        """Gives a name to an adapter, also while requests run; if it had one, for new requests only.

        Raises:
            AdapterError: there is no such folder, or the name is the base model's, or no text.
        """
        path = adapter_folder(adapter_id, folder)
        self._model.add_adapter(adapter_id, path)
        if self._replicas is not None:
            self._replicas.call("add_adapter", adapter_id, path)

    def remove_adapter(self, adapter_id: str) -> None:
        """Forgets a name; requests that have it keep the adapter.

        Raises:
            UnknownAdapterError: there is no adapter of that name.
        """
        self._model.remove_adapter(adapter_id)
        if self._replicas is not None:
            self._replicas.call("remove_adapter", adapter_id)

    def release_adapters(self) -> int:
        """Gives back the memory of adapters that have lost their name; returns how many have to wait for requests."""
        others = {} if self._replicas is None else self._replicas.call("release_adapters", result=int)
        return self._model.release_adapters() + sum(others.values())

    def list_adapters(self) -> list[AdapterStatus]:
        """Every adapter that has a name now, with what it has done."""
        return self._model.list_adapters()

    def metrics(self) -> EngineMetrics:
        """Requests, tokens, blocks of the KV cache and adapters in memory, now and since the start."""
        return self._model.metrics()

    def replica_metrics(self) -> dict[int, EngineMetrics]:
        """As `metrics`, of every replica that serves, by their numbers."""
        others = {} if self._replicas is None else self._replicas.call("metrics", result=EngineMetrics)
        return {0: self.metrics(), **others}

    @property
    def replica_state(self) -> ReplicaState:
        """Which replicas serve, and which have ended: one of this machine is started again."""
        return ReplicaState(1, {}, 0) if self._replicas is None else self._replicas.state()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapter_ids: str | Sequence[str | None] | None = None,
    ) -> list[RequestOutput]:
        """The finished outputs of the prompts, in their order.

        A request that cannot be served fails alone: its output's `error` says why, and it has no `outputs`.

        Args:
            prompts: texts or lists of token ids, one or several.
            sampling_params: one for all, or one for each prompt.
            adapter_ids: one for all, or one for each prompt; None is the base model.

        Raises:
            MindgenError: no request at all could be served.
        """
        stream = self.stream(prompts, sampling_params, adapter_ids, is_streamed=False)
        finished = {chunk.index: chunk.output for chunk in stream if chunk.output is not None}
        outputs = [output for _, output in sorted(finished.items())]
        exceptions = [output.exception for output in outputs if output.exception is not None]
        if exceptions and len(exceptions) == len(outputs):
            raise exceptions[0]
        return outputs

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapter_ids: str | Sequence[str | None] | None = None,
        is_streamed: bool = True,
    ) -> ChunkStream:
        """As `generate`, but gives text as it comes: of each prompt and output the chunks joined are its text.

        A request that fails has a last chunk like all others, whose output says why.

        Args:
            is_streamed: whether somebody waits for the text; else a request's chunks come at its end.
        """
        return self.stream_requests(read_requests(prompts, sampling_params, adapter_ids), is_streamed)

    def stream_requests(self, requests: list[CheckedRequest], is_streamed: bool) -> ChunkStream:
        """As `stream`, of requests that have been checked, of which some may be refused already."""
        return ChunkStream(self._server, requests, is_streamed)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        adapter_ids: str | Sequence[str | None] | None = None,
        **template_variables: Any,
    ) -> list[RequestOutput]:
        """The next message of each conversation, which is a list of {"role": ..., "content": ...}.

        Args:
            template_variables: what the chat template takes besides, like tools or add_generation_prompt.
        """
        if isinstance(messages, (str, bytes)) or not isinstance(messages, Sequence):
            raise RequestError(f"messages must be a conversation or a list of them, not {shown(messages)}")
        conversations = [messages] if messages and isinstance(messages[0], Mapping) else messages
        prompts: list[Any] = []
        for conversation in conversations:
            try:
                prompts.append(self.chat_prompt(conversation, **template_variables))  # type: ignore[arg-type]
            except MindgenError as error:
                prompts.append(error)  # of this one alone
        return self.generate(prompts, sampling_params, adapter_ids)

    def stream_chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        adapter_id: str | None = None,
        **template_variables: Any,
    ) -> ChunkStream:
        """As `chat` of one conversation, but gives text as it comes; closing the stream stops the answer."""
        return self.stream(self.chat_prompt(messages, **template_variables), sampling_params, adapter_id)

    def chat_prompt(self, messages: Sequence[Message], **template_variables: Any) -> dict[str, Any]:
        """The prompt that the model's chat template makes of a conversation."""
        if self._templates is None:
            self._templates = load_chat_templates(self._model.folder, self.tokenizer.special_tokens)
        text = self._templates.render(messages, **template_variables)
        return {"prompt": text, "prompt_token_ids": self.encode(text, add_special_tokens=False)}

    @contextmanager
    def profile(self) -> Iterator[Profile]:
        """Records where the time of all steps goes until it is left."""
        profile = Profile(plugin.load(), DType[self._model.dtype.upper()])
        self._model.record(profile)
        try:
            with profile.recording():
                yield profile
        finally:
            self._model.record(None)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a prompt, with the special tokens that the model expects around it."""
        return self.tokenizer.encode(text, add_special_tokens)

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return self.tokenizer.decode(to_token_ids("token_ids", token_ids), skip_special_tokens)

    def close(self, exit_code: int = 0, reason: str = "") -> None:
        """Ends the processes that work for this one; nothing can be asked for afterwards.

        Args:
            exit_code, reason: how it has ended, which other machines tell as well.
        """
        self._model.close()
        if self._replicas is not None:
            self._replicas.close()
        if self._nodes is not None:
            self._nodes.close(exit_code, reason)

    def reset_prefix_cache(self) -> None:
        """Forgets what earlier requests have computed."""
        self._model.reset_prefix_cache()
        if self._replicas is not None:
            self._replicas.call("reset_prefix_cache")
