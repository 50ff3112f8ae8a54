"""What the sampler knows of one sequence, in the form that the kernel reads."""

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from ctypes import c_float, c_int32, c_uint64, c_void_p
from typing import ClassVar, NamedTuple

import numpy as np

from mindgen.errors import RequestError
from mindgen.sampling_params import SamplingParams
from mindgen.system.checks import require_tokens

SAMPLE, SCORE, BEAM = range(3)  # mg_sampling_mode


class RowRecord(ctypes.Structure):
    """mg_sampling_row of csrc/include/mindgen_kernels.h."""

    _fields_: ClassVar = [
        *((name, c_void_p) for name in ("allowed", "grammar", "banned", "bias_tokens", "biases", "prompt", "output")),
        *((name, c_uint64) for name in ("seed", "position")),
        *((name, c_int32) for name in ("mode", "token", "num_logprobs")),
        *((name, c_int32) for name in ("num_banned", "num_biases", "num_prompt", "num_output", "top_k")),
        ("wants_processed", c_int32),
        *((name, c_float) for name in ("temperature", "top_p", "min_p", "typical_p")),
        *((name, c_float) for name in ("repetition_penalty", "presence_penalty", "frequency_penalty")),
    ]


class Vocabulary(NamedTuple):
    """A model's tokens: how many they are, and which of them end an output."""

    size: int
    eos_token_ids: tuple[int, ...] = ()


class SamplingRow:
    """One sequence's state for the sampler: made once, told of each token of the output with `append`.

    What it gives at a position depends on what it was made with and the tokens before, on nothing else. So resumed
    and preempted sequences, guessed tokens (`ahead`) and the i-th of n outputs (seed + i) draw the same as any.

    Args:
        prompt_token_ids: which the repetition penalty counts as well.
        vocabulary: of the logits; min_tokens keeps back what ends an output, beside stop_token_ids.
        seed: 64 bits; see SamplingParams.sample_seed.
        bad_word_token_ids: the tokens of each of params.bad_words.

    Attributes:
        record: what the kernel reads.
        num_logprobs: how many likeliest tokens are reported; -1 is none, not even the chosen one.

    Raises:
        RequestError: a token id of the parameters is outside the vocabulary.
    """

    __slots__ = (
        "_allowed", "_bad_words", "_banned", "_biases", "_early_stops", "_forced", "_grammar", "_output", "_prompt",
        "num_logprobs", "params", "record", "vocab_size",
    )  # fmt: skip

    def __init__(
        self,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        vocabulary: Vocabulary,
        seed: int,
        bad_word_token_ids: Iterable[Sequence[int]] = (),
    ) -> None:
        self.params = params
        self.vocab_size = vocab_size = vocabulary.size
        self._bad_words = [tuple(word) for word in bad_word_token_ids]
        ends = vocabulary.eos_token_ids if params.min_tokens and not params.ignore_eos else ()
        check_token_ids(params, vocab_size, self._bad_words, ends)
        self._early_stops = array("i", sorted({*ends, *params.stop_token_ids})) if params.min_tokens else None
        asked = -1 if params.logprobs is None else params.logprobs if params.logprobs >= 0 else vocab_size
        self.num_logprobs = min(asked, vocab_size)
        self._forced = tuple(params.forced_token_ids)
        self._allowed = None if params.allowed_token_ids is None else token_mask(params.allowed_token_ids, vocab_size)
        self._grammar: np.ndarray | None = None
        self._biases = array("i", params.logit_bias or ()), array("f", (params.logit_bias or {}).values())
        self._prompt = np.unique(np.asarray(prompt_token_ids, np.int32)) if params.repetition_penalty != 1 else None
        self._banned = array("i")
        has_penalties = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1, 0, 0)
        self._output = array("i") if has_penalties or self._bad_words else None
        self.record = RowRecord(
            seed=seed,
            num_logprobs=self.num_logprobs,
            top_k=min(max(params.top_k, 0), vocab_size),
            wants_processed=params.processed_logprobs,
            temperature=0.0 if params.is_greedy else params.temperature,
            top_p=params.top_p,
            min_p=params.min_p,
            typical_p=params.typical_p,
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
        )
        self._point_to_arrays()
        self._refresh()

    @property
    def position(self) -> int:
        """Of the next token in the output."""
        return self.record.position

    @property
    def token_mask(self) -> np.ndarray | None:
        """What a grammar allows next: uint32 words of V bits, set where allowed; None is all. Not copied."""
        return self._grammar

    @token_mask.setter
    def token_mask(self, mask: np.ndarray | None) -> None:
        num_words = -(-self.vocab_size // 32)
        if mask is not None and (mask.dtype != np.uint32 or mask.shape != (num_words,) or not mask.flags.c_contiguous):
            raise ValueError(f"a token mask has {num_words} contiguous words of 32 bits, not {mask.dtype} {mask.shape}")
        self._grammar = mask
        self.record.grammar = None if mask is None else mask.ctypes.data

    def append(self, token_id: int) -> None:
        """Takes up the next token of the output."""
        self.record.position += 1
        if self._output is not None:
            self._output.append(token_id)
        if self._output is not None or self._early_stops is not None or self._forced:
            self._refresh()

    def ahead(self, token_ids: Iterable[int]) -> list["SamplingRow"]:
        """Rows for the positions after this one, if these tokens come; their masks are the caller's to set."""
        rows: list[SamplingRow] = []
        for token_id in token_ids:
            row = (rows[-1] if rows else self)._copy()
            row.append(token_id)
            rows.append(row)
        return rows

    def _copy(self) -> "SamplingRow":
        row = object.__new__(SamplingRow)
        for name in self.__slots__:
            setattr(row, name, getattr(self, name))
        row.record = RowRecord.from_buffer_copy(self.record)
        row.token_mask = None
        row._banned = array("i")
        if self._output is not None:
            row._output = self._output[:]
        return row

    def _point_to_arrays(self) -> None:
        """Of those that stay as they are."""
        record = self.record
        if self._allowed is not None:
            record.allowed = self._allowed.ctypes.data
        record.bias_tokens, record.num_biases = self._biases[0].buffer_info()
        record.biases = self._biases[1].buffer_info()[0]
        if self._prompt is not None:
            record.prompt, record.num_prompt = self._prompt.ctypes.data, self._prompt.size

    def _refresh(self) -> None:
        """Takes over what has changed with the position."""
        if self._output is not None:
            self.record.output, self.record.num_output = self._output.buffer_info()  # it moves as it grows
        if self._forced:
            is_given = self.position < len(self._forced)
            self.record.mode = SCORE if is_given else SAMPLE
            self.record.token = self._forced[self.position] if is_given else 0
        self._banned = array("i")
        if self._early_stops is not None and self.position < self.params.min_tokens:
            self._banned.extend(self._early_stops)
        self._banned.extend(word[-1] for word in self._bad_words if self._is_begun(word))
        self.record.banned, self.record.num_banned = self._banned.buffer_info()

    def _is_begun(self, word: tuple[int, ...]) -> bool:
        """Whether the output ends with all of a word but its last token."""
        begun = word[:-1]
        return not begun or (self._output is not None and tuple(self._output[-len(begun) :]) == begun)


def check_token_ids(
    params: SamplingParams,
    vocab_size: int,
    bad_word_token_ids: Iterable[Sequence[int]] = (),
    eos_token_ids: Iterable[int] = (),
) -> None:
    """That all token ids that the sampler is told of are within the vocabulary.

    Raises:
        RequestError: names the parameter and the id.
    """
    require_tokens("stop_token_ids", params.stop_token_ids, vocab_size)
    require_tokens("forced_token_ids", params.forced_token_ids, vocab_size)
    require_tokens("allowed_token_ids", params.allowed_token_ids or (), vocab_size)
    require_tokens("logit_bias", tuple(params.logit_bias or ()), vocab_size)
    require_tokens("eos_token_id of the model, which min_tokens holds back,", eos_token_ids, vocab_size)
    for word in bad_word_token_ids:
        if not word:
            raise RequestError("bad_words must be texts of at least one token each")
        require_tokens("bad_words", word, vocab_size)


def token_mask(token_ids: Sequence[int], vocab_size: int) -> np.ndarray:
    """uint32 words of vocab_size bits, set for these tokens."""
    bits = np.zeros(-(-vocab_size // 32) * 32, np.bool_)
    bits[list(token_ids)] = True
    return np.packbits(bits, bitorder="little").view(np.uint32)
