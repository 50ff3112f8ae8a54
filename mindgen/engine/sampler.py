"""Chooses the next token from a row of logits."""

import numpy as np

from mindgen.engine.sequence import Sequence


def sample(logits: np.ndarray, sequence: Sequence) -> int:
    """The next token of a sequence, from its float32 logits (V,), which may be overwritten."""
    params = sequence.params
    if params.repetition_penalty != 1.0:
        _penalize_repetition(logits, sequence.token_ids, params.repetition_penalty)
    if params.is_greedy:
        return int(np.argmax(logits))
    tokens = np.arange(logits.size)
    scaled = logits.astype(np.float64) / params.temperature
    if 0 < params.top_k < logits.size:
        tokens = np.argpartition(scaled, -params.top_k)[-params.top_k :]
        scaled = scaled[tokens]
    # Likeliest first; equal logits by token id, so that a seed gives the same token everywhere.
    order = np.lexsort((tokens, -scaled))
    tokens, scaled = tokens[order], scaled[order]
    probabilities = np.exp(scaled - scaled[0])
    probabilities /= probabilities.sum()
    if params.top_p < 1.0:
        # Keep the token that crosses p: those whose predecessors have not reached it.
        kept = np.cumsum(probabilities) - probabilities < params.top_p
        tokens, probabilities = tokens[kept], probabilities[kept]
    return int(tokens[_draw(probabilities, sequence.generator.random())])


def _draw(probabilities: np.ndarray, uniform: float) -> int:
    """The index that a uniform number in [0, 1) falls on, for weights that need not sum to 1."""
    cumulative = np.cumsum(probabilities)
    return min(int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right")), probabilities.size - 1)


def _penalize_repetition(logits: np.ndarray, token_ids: list[int], penalty: float) -> None:
    """Divides the positive and multiplies the negative logits of tokens seen before (arXiv:1909.05858)."""
    seen = np.unique(token_ids)
    values = logits[seen]
    logits[seen] = np.where(values > 0, values / penalty, values * penalty)
