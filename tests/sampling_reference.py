"""Sampling in float64 numpy: what may be drawn, with what probability, and what a uniform number draws."""

import numpy as np

from mindgen.sampling_params import SamplingParams


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    peak = scores.max()
    return scores - peak - np.log(np.exp(scores - peak).sum())


def uniform(seed: int, position: int, draw_round: int = 0) -> float:
    return np.random.Generator(np.random.Philox(key=seed + (draw_round << 64), counter=position)).random()


def penalize(scores: np.ndarray, params: SamplingParams, prompt: list[int], output: list[int]) -> np.ndarray:
    scores = scores.astype(np.float64)
    seen = np.unique(np.array([*prompt, *output], int))
    value = scores[seen]
    scores[seen] = np.where(value > 0, value / params.repetition_penalty, value * params.repetition_penalty)
    counts = np.bincount(np.array(output, int), minlength=len(scores))
    return scores - counts * params.frequency_penalty - (counts > 0) * params.presence_penalty


def filter_scores(scores: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The scores after temperature, min_p, typical_p and top_k; -inf where dropped; of equals the first stay."""
    scores = scores.astype(np.float64) / params.temperature
    if params.min_p > 0:
        scores = np.where(softmax(scores) >= params.min_p * softmax(scores).max(), scores, -np.inf)
    if params.typical_p < 1:
        probabilities = softmax(scores)
        information = -np.log(probabilities, where=probabilities > 0, out=np.full_like(scores, -np.inf))
        distance = np.where(probabilities > 0, abs(information - (probabilities @ np.where(
            probabilities > 0, information, 0))), np.inf)  # fmt: skip
        order = np.argsort(distance, kind="stable")
        reached = np.cumsum(probabilities[order])
        last = min(int((reached < params.typical_p).sum()), len(scores) - 1)
        scores = np.where(distance <= distance[order[last]] + 1e-9, scores, -np.inf)
    if 0 < params.top_k < len(scores):
        scores[np.argsort(-scores, kind="stable")[params.top_k :]] = -np.inf
    return scores


def draw_top_p(scores: np.ndarray, top_p: float, seed: int, position: int, tolerance: float) -> set[int]:
    """The token that falls among the likeliest of share top_p: draws go on among those before the last one drawn."""
    order = np.argsort(-scores, kind="stable")
    probabilities = softmax(scores.astype(np.float64))
    before = np.empty(len(scores))
    before[order] = np.cumsum(probabilities[order]) - probabilities[order]
    tokens, rest = set(), [(scores, 0)]
    while rest:
        left, draw_round = rest.pop()
        for token in draw(left, uniform(seed, position, draw_round), tolerance):
            if before[token] < top_p + tolerance or token == order[0]:
                tokens.add(token)
            if top_p < 1 and before[token] >= top_p - tolerance and token != order[0]:
                fewer, earlier = np.full_like(left, -np.inf), order[: np.flatnonzero(order == token)[0]]
                fewer[earlier] = left[earlier]
                rest.append((fewer, draw_round + 1))
    return tokens


def draw(scores: np.ndarray, value: float, tolerance: float) -> set[int]:
    """The token that a uniform number falls on; both of them close to where two meet."""
    cumulative = np.cumsum(softmax(scores.astype(np.float64)))
    kept = np.flatnonzero(scores > -np.inf)
    places = np.searchsorted(cumulative[kept], [value - tolerance, value + tolerance], side="right")
    return {int(kept[min(place, len(kept) - 1)]) for place in range(places[0], places[1] + 1)}
