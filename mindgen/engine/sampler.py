"""Chooses the next tokens from rows of logits."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mindgen.engine.sampling_row import BEAM, SCORE, RowRecord, SamplingRow
from mindgen.kernels.library import KernelLibrary

_SAMPLED, _NOT_FINITE = 0, 1  # mg_sampling_status
_RECORD = np.dtype(RowRecord)
_RESULT = np.dtype([("status", np.int32), ("token", np.int32), ("rank", np.int32), ("logprob", np.float32),
                    ("processed", np.float32)])  # fmt: skip


class SampledToken(NamedTuple):
    """What a row gave; log-probabilities are the network's own, before any processor, but for the processed one.

    Attributes:
        token_id: -1 when there is an error.
        logprob, rank: of the token, 1 being the likeliest; None unless log-probabilities were asked for.
        top_logprobs: of as many of the likeliest tokens as were asked for, best first.
        error: why there is no token; other rows are not concerned.
        processed_logprob: of the token in the distribution that it was drawn from; 0 of a greedy choice.
    """

    token_id: int
    logprob: float | None = None
    rank: int | None = None
    top_logprobs: dict[int, float] | None = None
    error: str | None = None
    processed_logprob: float | None = None


class Continuation(NamedTuple):
    """A token that a beam may go on with, and its processed log-probability."""

    token_id: int
    logprob: float


class Sampler:
    """Sampling on the CPU; a row's result does not depend on the others in its batch."""

    def __init__(self, kernels: KernelLibrary) -> None:
        self._kernels = kernels

    def sample(self, logits: np.ndarray, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """The next token of each row, from float32 logits (B, V), which stay as they are."""
        records = _gather(logits, rows)
        max_logprobs = max([row.num_logprobs for row in rows], default=-1)
        results, tokens, logprobs = self._run(logits, records, max(max_logprobs, 0))
        status, token_ids = results["status"], results["token"].tolist()
        wants_processed = bool(records["wants_processed"].any())
        if max_logprobs < 0 and not status.any() and not wants_processed:
            return list(map(SampledToken, token_ids))
        return [
            _with_logprobs(result, row.num_logprobs, top_tokens, top_logprobs)
            if result[0] == _SAMPLED
            else SampledToken(-1, error=_reason(result[0], row))
            for result, row, top_tokens, top_logprobs in zip(results.tolist(), rows, tokens, logprobs, strict=True)
        ]

    def score(self, logits: np.ndarray, token_ids: Sequence[int], num_logprobs: int) -> list[SampledToken]:
        """The log-probabilities of given tokens, and of as many of the likeliest ones, in rows of logits (B, V).

        For the tokens of a prompt: row i has the logits after token i, and token_ids[i] is token i + 1.
        """
        records = np.zeros(len(token_ids), _RECORD)
        num_logprobs = logits.shape[1] if num_logprobs < 0 else min(num_logprobs, logits.shape[1])
        records["mode"], records["token"], records["num_logprobs"] = SCORE, token_ids, num_logprobs
        results, tokens, logprobs = self._run(logits, records, num_logprobs)
        return [
            _with_logprobs(result, num_logprobs, top_tokens, top_logprobs)
            if result[0] == _SAMPLED
            else SampledToken(-1, error=_reason(result[0], None))
            for result, top_tokens, top_logprobs in zip(results.tolist(), tokens, logprobs, strict=True)
        ]

    def continuations(
        self, logits: np.ndarray, rows: Sequence[SamplingRow], count: int
    ) -> list[list[Continuation] | str]:
        """The `count` likeliest next tokens of each beam, best first; or why there is none.

        Masks, bans, biases and penalties act on the log-probabilities, temperature and the filters not at all.
        """
        records = _gather(logits, rows)
        count = min(count, logits.shape[1])
        records["mode"], records["num_logprobs"] = BEAM, count
        results, tokens, logprobs = self._run(logits, records, count)
        return [
            [Continuation(*pair) for pair in zip(top_tokens, top_logprobs, strict=True) if pair[0] >= 0]
            if status == _SAMPLED
            else _reason(status, row)
            for status, row, top_tokens, top_logprobs in zip(
                results["status"].tolist(), rows, tokens.tolist(), logprobs.tolist(), strict=True
            )
        ]

    def _run(
        self, logits: np.ndarray, records: np.ndarray, max_logprobs: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if logits.dtype != np.float32 or logits.ndim != 2 or len(logits) != len(records):
            raise ValueError(f"{len(records)} rows need as many of float32 logits, not {logits.dtype} {logits.shape}")
        results = np.empty(len(records), _RESULT)
        tokens = np.empty((len(records), max_logprobs), np.int32)
        logprobs = np.empty((len(records), max_logprobs), np.float32)
        # As bytes, for numpy takes ten times as long to tell where an array of records lies.
        buffers = records.view(np.uint8), results.view(np.uint8)
        self._kernels.call("sample", logits, *buffers, tokens, logprobs, max_logprobs, *logits.shape)
        return results, tokens, logprobs


def _gather(logits: np.ndarray, rows: Sequence[SamplingRow]) -> np.ndarray:
    """The rows' records (B,), writable."""
    if {row.vocab_size for row in rows} - {logits.shape[1]}:
        raise ValueError(f"the rows are of another vocabulary than the logits' {logits.shape[1]}")
    return np.frombuffer(bytearray().join([row.record for row in rows]), _RECORD)


def _with_logprobs(
    result: tuple[int, int, int, float, float], num_logprobs: int, top_tokens: np.ndarray, top_logprobs: np.ndarray
) -> SampledToken:
    _, token_id, rank, logprob, processed = result
    processed_logprob = None if math.isnan(processed) else processed
    if num_logprobs < 0:
        return SampledToken(token_id, processed_logprob=processed_logprob)
    pairs = zip(top_tokens[:num_logprobs].tolist(), top_logprobs[:num_logprobs].tolist(), strict=True)
    likeliest = {token: value for token, value in pairs if token >= 0}
    return SampledToken(token_id, logprob, rank, likeliest, processed_logprob=processed_logprob)


def _reason(status: int, row: SamplingRow | None) -> str:
    if status == _NOT_FINITE:
        return "the network gave logits that are NaN or infinite"
    record = row.record if row is not None else RowRecord()
    limits = {
        "allowed_token_ids": record.allowed,
        "the grammar": record.grammar,
        "bad_words and min_tokens": record.num_banned,
    }
    names = [name for name, in_use in limits.items() if in_use]
    return f"no token may come next: {', '.join(names) or 'the logits'} together leave none"
