"""ChatLearn's VLLMModule on mindgen's engine, in both of its generations.

Of https://github.com/alibaba/ChatLearn: chatlearn/models/vllm_module.py, where the step API is that of its pages up to
September 2024, and `generate` with rows of dictionaries what came after.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mindgen.compat.mindformers import AutoTokenizer
from mindgen.compat.pretrained_tokenizer import PretrainedTokenizer
from mindgen.errors import RequestError
from mindgen.llm import LLM
from mindgen.loop.request_reader import CheckedRequest, read_request
from mindgen.outputs import RequestOutput
from mindgen.rlhf.decoded_batch import decode_batch, response_rows
from mindgen.rlhf.module_settings import ModuleSettings, read_module_settings
from mindgen.rlhf.prompt_pipeline import PromptPipeline
from mindgen.rlhf.step_loop import STEP_KEYS, StepLoop
from mindgen.system.checks import shown, to_integer, to_token_ids

Row = Mapping[str, Any]
Rows = Sequence[Row] | Mapping[str, Sequence[Any]]


class ModuleTokenizer:
    """The model's tokenizer where ChatLearn's modules have it: `tokenizer.tokenizer`."""

    def __init__(self, tokenizer: PretrainedTokenizer) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not yet there while it is unpickled
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


class GenerationModule:
    """A policy that generates. Subclasses override setup, build_dataset, forward_step, eval_forward, decode_internal
    or postprocess_func, or none of them.

    The model is opened by `setup`, or by the first call that needs it where a subclass's `setup` does not.

    Args:
        name: the model's name in the training job.
        args: a YAML file of ChatLearn's, its keys in a mapping, or settings that have been read.
        replica_id: of the modules of this name; replicas draw different numbers.
        llm: a model that is open already, in place of the settings' own.

    Attributes:
        model_args: the keys as they were given, defaults included.
        outputs: of the last requests that `_add_request` took, as they end; each one's request_id is its place.

    Raises:
        ConfigError: a key is unknown or refused, or a value none that it may have.
    """

    def __init__(
        self,
        name: str = "policy",
        args: ModuleSettings | str | Path | Mapping[str, Any] | None = None,
        replica_id: int = 0,
        *,
        llm: LLM | None = None,
    ) -> None:
        self.name = name
        self.replica_id = to_integer("replica_id", replica_id, 0)
        self.settings = args if isinstance(args, ModuleSettings) else read_module_settings(args)
        self.model_args: dict[str, Any] = dict(self.settings.given)
        self._llm = llm
        self._owns_llm = llm is None
        self._tokenizer: ModuleTokenizer | None = None
        self._steps: StepLoop | None = None
        self._num_requests = 0

    def setup(self) -> None:
        """Opens the model."""
        _ = self.llm

    @property
    def llm(self) -> LLM:
        if self._llm is None:
            settings = self.settings
            self._llm = LLM(
                settings.model,
                adapters=settings.given.get("adapters"),
                dtype=settings.dtype,
                config=settings.engine,
                checkpoint=settings.checkpoint,
            )
        return self._llm

    @property
    def tokenizer(self) -> ModuleTokenizer:
        """Which needs no open model."""
        if self._tokenizer is None:
            self._tokenizer = ModuleTokenizer(AutoTokenizer.from_pretrained(self.settings.model))
        return self._tokenizer

    @property
    def seq_length(self) -> int:
        """Tokens of prompt and response together, at most."""
        longest = self.llm.max_model_len
        return min(int(self.model_args.get("seq_length", longest)), longest)

    @property
    def num_requests(self) -> int:
        """How many of the requests that `_add_request` took have not ended."""
        return 0 if self._steps is None else self._steps.num_unfinished

    @property
    def outputs(self) -> list[RequestOutput]:
        return [] if self._steps is None else self._steps.outputs()

    def build_dataset(self, train_prompts: Sequence[str | Row], is_eval: bool = False) -> PromptPipeline:
        """Rows of tokens, each training prompt num_inference_per_prompt times."""
        repeats = 1 if is_eval else self.model_args["num_inference_per_prompt"]
        if isinstance(train_prompts, (str, Mapping)) or not isinstance(train_prompts, Sequence):
            raise RequestError(f"train_prompts must be a list of texts or of rows, not {shown(train_prompts)}")
        prompts = [prompt for prompt in train_prompts for _ in range(repeats)]
        longest = self.model_args.get("max_prompt_tokens_length")
        if longest is None:
            longest = self.seq_length - self.model_args.get("max_new_tokens", 1)
        prompt_key = self.model_args.get("prompt_key", "prompt")
        return PromptPipeline(prompts, longest, self.tokenizer.tokenizer, prompt_key)

    def generate(
        self, query: Rows, is_eval: bool, iteration: int = 0, is_first_run: bool = True
    ) -> list[RequestOutput]:
        """The finished outputs, in the order of the prompts, by which their request_id counts.

        Args:
            query: rows with prompt and input_ids, or lists of these under their names. max_generate_token_length of a
                row is the most tokens of its response.

        Raises:
            MindgenError: a request cannot be served: no row is left out in silence.
        """
        outputs: dict[int, RequestOutput] = {}
        for chunk in self.llm.stream_requests(self._requests(query, is_eval), is_streamed=False):
            if chunk.output is not None:
                chunk.output.request_id = chunk.index
                outputs[chunk.index] = chunk.output
        return _served([outputs[place] for place in sorted(outputs)])

    def generate_vllm(self, query: Rows, is_eval: bool, iteration: int = 0) -> list[RequestOutput]:
        """`generate`, as it was called for a while."""
        return self.generate(query, is_eval, iteration)

    def forward_step(self, data: Any, iteration: int = 0, **kwargs: Any) -> Any:
        """One of three, by what data is: what `schedule` gives, which runs a step and says how many requests are left;
        rows, whose responses come back as `postprocess_func` makes them; or lists of prompts and input_ids, which come
        back as `decode_internal` makes them."""
        return self._forward_step(data, iteration, False)

    def eval_forward(self, data: Any, iteration: int = 0, **kwargs: Any) -> Any:
        """As `forward_step`, with eval_temperature, eval_top_k and eval_top_p."""
        return self._forward_step(data, iteration, True)

    def _forward_step(self, data: Any, iteration: int, is_eval: bool) -> Any:
        if isinstance(data, Mapping) and STEP_KEYS[0] in data:
            return self.execute_step(data)
        outputs = self.generate(data, is_eval, iteration)
        return self.decode_internal(outputs) if isinstance(data, Mapping) else self.postprocess_func(outputs, data)

    def _add_request(self, data: Rows, is_eval: bool = False) -> None:
        """Takes the prompts of an episode, to be answered by `schedule` and `execute_step` in turn."""
        if self._steps is None:
            self._steps = StepLoop(self.llm.server)
        self._steps.add(self._requests(data, is_eval))

    def schedule(self) -> dict[str, Any]:
        """What `execute_step` takes; {} when nothing is left."""
        return {} if self._steps is None else self._steps.schedule()

    def execute_step(self, data: Any, *blocks: Any) -> int:
        """Runs one step of the engine; how many requests are left.

        Args:
            data: what `schedule` has given; or its seq_group_metadata_list, and then its blocks_to_swap_in,
                blocks_to_swap_out and blocks_to_copy.

        Raises:
            RequestError: it is something else.
        """
        if self._steps is None:
            raise RequestError("execute_step has nothing to do: there was no _add_request")
        if not isinstance(data, Mapping):
            if len(blocks) != len(STEP_KEYS) - 1:
                raise RequestError(f"execute_step takes what schedule gives, or {', '.join(STEP_KEYS)}")
            data = dict(zip(STEP_KEYS, (data, *blocks), strict=True))
        return self._steps.execute(data)

    def decode(self) -> Any:
        """The responses of the last `_add_request`, as `decode_internal` makes them."""
        if self.num_requests:
            raise RequestError(f"{self.num_requests} requests have not ended: go on with schedule and execute_step")
        return self.decode_internal(_served(self.outputs))

    def decode_internal(self, batched_outputs: Sequence[RequestOutput]) -> Any:
        """The tensors of `decoded_batch.decode_batch`, padded with the end of sequence to seq_length."""
        pad = self.tokenizer.tokenizer.eos_token_id
        return decode_batch(batched_outputs, self.seq_length, self.llm.eos_token_ids[0] if pad is None else pad)

    def postprocess_func(self, batched_outputs: Sequence[RequestOutput], input_data_list: Sequence[Row]) -> Any:
        """The rows of `decoded_batch.response_rows`."""
        return response_rows(batched_outputs, input_data_list)

    def close(self) -> None:
        """Ends what has been begun, and the model if the module has opened it."""
        if self._steps is not None:
            with suppress(Exception):  # the model may have been closed already
                self._steps.close()
        if self._llm is not None and self._owns_llm:
            self._llm.close()

    def _requests(self, query: Rows, is_eval: bool) -> list[CheckedRequest]:
        return [self._request(row, is_eval) for row in self._rows(query)]

    def _rows(self, query: Rows) -> list[Row]:
        if not isinstance(query, Mapping):
            is_list = isinstance(query, Sequence) and not isinstance(query, str)
            if not is_list or not all(isinstance(row, Mapping) for row in query):
                raise RequestError(f"data must be rows with prompt and input_ids, not {shown(query)}")
            return list(query)
        lengths = {len(values) for values in query.values()}
        if len(lengths) != 1:
            raise RequestError(f"data must have lists of one length under its keys {', '.join(query)}")
        return [dict(zip(query, values, strict=True)) for values in zip(*query.values(), strict=True)]

    def _request(self, row: Row, is_eval: bool) -> CheckedRequest:
        prompt_key = self.model_args.get("vllm_prompt_key", "prompt")
        text = row.get(prompt_key)
        token_ids = row.get(self.model_args.get("vllm_input_ids_key", "input_ids"))
        if token_ids is None:
            if not isinstance(text, str):
                raise RequestError(f"a row must have its tokens as input_ids, or its text as {prompt_key}")
            token_ids = self.tokenizer.tokenizer.encode(text)
        token_ids, most = self.settings.fit(to_token_ids("input_ids", token_ids), self.seq_length)
        if row.get("max_generate_token_length") is not None:
            most = min(most, to_integer("max_generate_token_length", row["max_generate_token_length"], 1))
        seed = self.settings.seed(self.replica_id, self._num_requests)
        self._num_requests += 1
        prompt = {"prompt": text, "prompt_token_ids": token_ids} if isinstance(text, str) else token_ids
        return read_request(prompt, self.settings.params(most, seed, is_eval), self.settings.adapter_id)


VLLMModule = GenerationModule  # as ChatLearn calls it


def _served(outputs: list[RequestOutput]) -> list[RequestOutput]:
    """The outputs; raises the first reason why there is none."""
    for output in outputs:
        if output.exception is not None:
            raise RequestError(f"request {output.request_id}: {output.exception}") from output.exception
    return outputs
