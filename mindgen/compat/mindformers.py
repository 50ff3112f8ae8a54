"""MindFormers' interface: a model that continues rows of token ids, and the tokenizer beside it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.compat.option_aliases import LENGTH_OPTIONS, translate_options
from mindgen.compat.padding import count_leading, without_padding
from mindgen.compat.pretrained_tokenizer import PretrainedTokenizer, find_pad_token
from mindgen.compat.streamers import BaseStreamer
from mindgen.errors import RequestError
from mindgen.llm import LLM
from mindgen.loop.model_files import DEFAULT_MODEL, AdapterPaths
from mindgen.outputs import RequestOutput, TextChunk
from mindgen.store.find_model import find_tokenizer
from mindgen.system.checks import shown, to_token_ids
from mindgen.text.chat_template import load_chat_templates
from mindgen.text.tokenizer import load_tokenizer


class AutoModel:
    """Makes models, whatever their architecture."""

    @staticmethod
    def from_pretrained(
        path: str | Path = DEFAULT_MODEL, adapters: AdapterPaths | None = None, **options: Any
    ) -> "Model":
        """The model, by any name that LLM takes; options are LLM's, like dtype or max_num_seqs."""
        return Model(LLM(path, adapters, **options))


class AutoTokenizer:
    """Makes tokenizers, whatever their kind."""

    @staticmethod
    def from_pretrained(path: str | Path = DEFAULT_MODEL) -> PretrainedTokenizer:
        """The tokenizer in a folder, or that of a model by any name that LLM takes."""
        folder = find_tokenizer(path)
        tokenizer = load_tokenizer(folder)
        return PretrainedTokenizer(tokenizer, load_chat_templates(folder, tokenizer.special_tokens))


@dataclass(frozen=True, slots=True)
class GenerateOutput:
    """What return_dict_in_generate asks for; its attributes are keys as well.

    Attributes:
        sequences: what `generate` returns otherwise.
        outputs: of each prompt, with reasons, log-probabilities and times.
    """

    sequences: list[np.ndarray]
    outputs: list[RequestOutput]

    def __getitem__(self, name: str) -> Any:
        if name not in ("sequences", "outputs"):
            raise KeyError(name)
        return getattr(self, name)


class Model:
    """A model with its adapters.

    Attributes:
        llm: the engine behind it.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm

    def generate(
        self,
        input_ids: Any,
        streamer: BaseStreamer | None = None,
        adapter_id: str | Sequence[str | None] | None = None,
        attention_mask: Any = None,
        pad_token_id: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        return_dict_in_generate: bool = False,
        **options: Any,
    ) -> list[np.ndarray] | GenerateOutput:
        """Continues rows of token ids; greedy without do_sample, and as far as the context goes without a length.

        Args:
            input_ids: one row, or a batch (B, T), as lists or arrays.
            streamer: gets the prompts, then each step's new tokens: of one row as an array (1, T), else as a list of
                rows, which are empty where nothing is new. Goes with one output per row, and no beam search.
            adapter_id: one for all rows, or one for each; None is the base model.
            attention_mask: as input_ids; 0 where there is nothing but padding.
            pad_token_id: what rows are padded with at either end, where there is no attention_mask; None is the
                tokenizer's. If it begins or ends texts as well, as GPT-2's does, it is taken for padding only at an
                end where the rows of a batch, all of one length, have different numbers of it; a lone row keeps it.
            eos_token_id: what ends a row, instead of the model's own.
            options: max_length (prompt included), max_new_tokens, do_sample, temperature, top_k, top_p,
                repetition_penalty, num_beams, num_return_sequences, seed and all others that `translate_options` has.

        Returns:
            Of each row, and each of its outputs, the ids (T,) int32 of the prompt without padding and of what follows.

        Raises:
            MindgenError: a row cannot be continued.
        """
        ends = None if eos_token_id is None else _one_or_several("eos_token_id", eos_token_id)
        if pad_token_id is not None:
            (pad_token_id,) = to_token_ids("pad_token_id", [pad_token_id])
        options = {"do_sample": False, **options, **_end_options(ends, options.get("stop_token_ids"))}
        if not set(LENGTH_OPTIONS) & {name for name, value in options.items() if value is not None}:
            options["new_token_limit"] = False
        adapter_ids = adapter_id[0] if isinstance(adapter_id, (list, tuple)) and len(adapter_id) == 1 else adapter_id
        with _ending(streamer):
            prompts = self._prompts(
                input_ids, attention_mask, pad_token_id, self.llm.eos_token_ids if ends is None else ends
            )
            params = [translate_options(options, len(prompt)) for prompt in prompts]
            if streamer is not None and (params[0].n > 1 or params[0].use_beam_search):
                raise RequestError("a streamer goes with one output per row and no beam search")
            with closing(self.llm.stream(prompts, params, adapter_ids).steps()) as steps:
                outputs = _collect(steps, prompts, streamer)
        sequences = [
            np.array(output.prompt_token_ids + completion.token_ids, np.int32)
            for output in outputs
            for completion in output.outputs
        ]
        return GenerateOutput(sequences, outputs) if return_dict_in_generate else sequences

    def _prompts(self, input_ids: Any, attention_mask: Any, pad: int | None, ends: Sequence[int]) -> list[list[int]]:
        """The rows without their padding; ends are the tokens that end a row."""
        rows = _rows("input_ids", input_ids)
        if attention_mask is not None:
            masks = _rows("attention_mask", attention_mask, lambda _, row: [bool(each) for each in row])
            if [len(mask) for mask in masks] != [len(row) for row in rows]:
                raise RequestError("attention_mask must have the shape of input_ids")
            return [
                [token_id for token_id, is_real in zip(row, mask, strict=True) if is_real]
                for row, mask in zip(rows, masks, strict=True)
            ]
        tokenizer = self.llm.tokenizer
        pad = find_pad_token(tokenizer) if pad is None else pad
        is_only_padding = pad not in (tokenizer.bos_id, tokenizer.eos_id, *ends)
        around = tokenizer.encode("a")
        return without_padding(
            rows, pad, is_only_padding, (count_leading(around, pad), count_leading(around[::-1], pad))
        )


def _rows(name: str, values: Any, read_row: Callable[[str, Any], list[int]] = to_token_ids) -> list[list[int]]:
    """A row, or several."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Sequence) or not values:
        raise RequestError(f"{name} must hold a row of token ids at least, not {shown(values)}")
    if np.ndim(values[0]) == 0 and not isinstance(values[0], (str, bytes, Mapping)):
        values = [values]
    return [read_row(name, row) for row in values]


def _one_or_several(name: str, values: Any) -> list[int]:
    return to_token_ids(name, values if isinstance(values, Iterable) else [values])


def _end_options(ends: Sequence[int] | None, stop_token_ids: Sequence[int] | None) -> dict[str, Any]:
    return {} if ends is None else {"ignore_eos": True, "stop_token_ids": [*ends, *(stop_token_ids or ())]}


@contextmanager
def _ending(streamer: BaseStreamer | None) -> Iterator[None]:
    """Ends the streamer also in failure, for another thread may be waiting for its text."""
    try:
        yield
    finally:
        if streamer is not None:
            streamer.end()


def _collect(
    steps: Iterator[list[TextChunk]], prompts: list[list[int]], streamer: BaseStreamer | None
) -> list[RequestOutput]:
    """The finished outputs, in the order of the prompts; the streamer gets the tokens on the way."""
    if streamer is not None:
        _put(streamer, prompts)
    outputs: dict[int, RequestOutput] = {}
    for chunks in steps:
        rows: list[list[int]] = [[] for _ in prompts]
        for chunk in chunks:
            rows[chunk.index] += chunk.token_ids
            if chunk.output is not None:
                if chunk.output.exception is not None:
                    raise chunk.output.exception
                outputs[chunk.index] = chunk.output
        if streamer is not None and any(rows):
            _put(streamer, rows)
    return [output for _, output in sorted(outputs.items())]


def _put(streamer: BaseStreamer, rows: list[list[int]]) -> None:
    """One row is an array, for other projects' streamers want one; several may differ in length."""
    streamer.put(np.array(rows) if len(rows) == 1 else rows)
