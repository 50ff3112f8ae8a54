"""Outputs of requests as the tensors that a trainer takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mindgen.errors import RequestError
from mindgen.outputs import CompletionOutput, RequestOutput


def decode_batch(outputs: Sequence[RequestOutput], seq_length: int, pad_token_id: int) -> dict[str, Any]:
    """One row for each response, those of one prompt together, N in all; S is seq_length, P a prompt's length.

    Returns:
        all_tokens: (N, S) int64, prompt and response, padded on the right.
        logprobs: (N, S - 1) float32, of token i + 1 in column i: of the prompt's tokens if prompt_logprobs was asked
            for, else 0; of the response's; then 0. The network's own; None of a beam search.
        processed_logprobs: (N, S - 1) float32, the same of the distribution that the response was drawn from, after
            penalties, temperature and filters; 0 for the prompt.
        loss_mask: (N, S) int64, 1 for all tokens but the padding token, and for the first one of these in the response.
        no_padded_query_ids: N arrays (P,) int64, the prompts.
        str_outputs, str_prompts: N texts.

    Raises:
        MindgenError: a request has failed; or one is longer than seq_length.
    """
    rows = [(output, response) for output in outputs for response in _responses(output)]
    all_tokens = np.full((len(rows), seq_length), pad_token_id, np.int64)
    for row, (output, response) in enumerate(rows):
        tokens = output.prompt_token_ids + response.token_ids
        if len(tokens) > seq_length:
            raise RequestError(
                f"request {output.request_id} has {len(tokens)} tokens, more than seq_length {seq_length}"
            )
        all_tokens[row, : len(tokens)] = tokens
    prompts = [np.array(output.prompt_token_ids, np.int64) for output, _ in rows]
    is_drawn = all(response.logprobs is not None for _, response in rows)
    return {
        "all_tokens": all_tokens,
        "str_outputs": [response.text for _, response in rows],
        "str_prompts": [output.prompt for output, _ in rows],
        "no_padded_query_ids": prompts,
        "logprobs": _shifted([_raw(*row) for row in rows], seq_length) if is_drawn else None,
        "processed_logprobs": _shifted([_processed(*row) for row in rows], seq_length) if is_drawn else None,
        "loss_mask": _loss_mask(all_tokens, pad_token_id, [len(prompt) for prompt in prompts]),
    }


def response_rows(outputs: Sequence[RequestOutput], inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The input rows, each once for every response, with all_tokens (int64, unpadded), response_token_length,
    prompt_token_length, str_outputs, and their rollout_round counted up, if they have one.

    Raises:
        MindgenError: a request has failed.
    """
    rows = []
    for output, row in zip(outputs, inputs, strict=True):
        for response in _responses(output):
            made = dict(row) | {
                "all_tokens": np.array(output.prompt_token_ids + response.token_ids, np.int64),
                "response_token_length": len(response.token_ids),
                "prompt_token_length": len(output.prompt_token_ids),
                "str_outputs": response.text,
            }
            if "rollout_round" in made:
                made["rollout_round"] += 1
            rows.append(made)
    return rows


def _responses(output: RequestOutput) -> list[CompletionOutput]:
    if output.exception is not None:
        raise output.exception
    return output.outputs


def _raw(output: RequestOutput, response: CompletionOutput) -> list[float]:
    assert response.logprobs is not None
    given = output.prompt_logprobs or [None] * len(output.prompt_token_ids)
    prompt = [
        0.0 if entry is None else float(entry[token])
        for token, entry in zip(output.prompt_token_ids, given, strict=True)
    ]
    pairs = zip(response.token_ids, response.logprobs, strict=True)
    return prompt[1:] + [float(entry[token]) for token, entry in pairs]


def _processed(output: RequestOutput, response: CompletionOutput) -> list[float]:
    return [0.0] * (len(output.prompt_token_ids) - 1) + (response.processed_logprobs or [])


def _shifted(rows: list[list[float]], seq_length: int) -> np.ndarray:
    """(N, S - 1), 0 behind each row's end."""
    found = np.zeros((len(rows), seq_length - 1), np.float32)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


def _loss_mask(all_tokens: np.ndarray, pad_token_id: int, prompt_sizes: list[int]) -> np.ndarray:
    """(N, S): a response that ends with the padding token, which is the end of sequence, is judged by that as well."""
    mask = (all_tokens != pad_token_id).astype(np.int64)
    for row, prompt_size in enumerate(prompt_sizes):
        padding = np.flatnonzero(all_tokens[row, prompt_size:] == pad_token_id)
        if padding.size:
            mask[row, prompt_size + padding[0]] = 1
    return mask
