"""Log-probabilities of given tokens, teacher-forced."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mindgen.errors import RequestError
from mindgen.llm import LLM
from mindgen.loop.request_reader import Prompt
from mindgen.outputs import RequestOutput
from mindgen.sampling_params import SamplingParams
from mindgen.system.checks import to_token_ids

Completion = str | Sequence[int]


def score(
    llm: LLM,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    adapter_ids: str | Sequence[str | None] | None = None,
) -> list[list[float]]:
    """The network's own log-probability of each token of each completion, after its prompt and the tokens before.

    On the engine that has generated a completion these are, to the bit, its `logprobs`: CPU kernels compute a row the
    same way whatever stands beside it, so the difference of a replay is exactly 0.

    Args:
        prompts: texts or lists of token ids.
        completions: token ids as `CompletionOutput.token_ids` holds them; or texts, whose tokens need not be those that
            they were generated as.
        adapter_ids: one for all, or one for each prompt; None is the base model.

    Returns:
        one list for each completion, as long as its tokens.

    Raises:
        RequestError: the lists are of different lengths, a completion is empty, or prompt and completion are together
            longer than the context.
        UnknownAdapterError: there is no such adapter.
    """
    if isinstance(prompts, str) or isinstance(completions, str) or len(prompts) != len(completions):
        raise RequestError("score needs a list of prompts and a list of as many completions")
    rows = [_tokens(llm, *pair) for pair in zip(prompts, completions, strict=True)]
    for place, (_, completion) in enumerate(rows):
        if not completion:
            raise RequestError(f"completion {place} is empty: expected at least one token")
    # The last token is the only one that may be generated: of it alone no logits are needed.
    inputs = [prompt + completion[:-1] for prompt, completion in rows]
    plain = SamplingParams(max_tokens=1, temperature=0, logprobs=0, prompt_logprobs=0, ignore_eos=True)
    params = [replace(plain, allowed_token_ids=completion[-1:]) for _, completion in rows]
    outputs = llm.generate(inputs, params, adapter_ids) if rows else []
    return [
        _logprobs(output, place, completion)
        for place, (output, (_, completion)) in enumerate(zip(outputs, rows, strict=True))
    ]


def _tokens(llm: LLM, prompt: Prompt, completion: Completion) -> tuple[list[int], list[int]]:
    """Of a text and the text that goes on with it, those of both together, as long as they begin with the former's."""
    if isinstance(prompt, Mapping):
        prompt = prompt.get("prompt_token_ids") or prompt.get("prompt") or ""
    prompt_ids = llm.encode(prompt) if isinstance(prompt, str) else to_token_ids("the prompt", prompt)
    if not isinstance(completion, str):
        return prompt_ids, to_token_ids("the completion", completion)
    whole = llm.encode(prompt + completion) if isinstance(prompt, str) else []
    if whole and whole[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, whole[len(prompt_ids) :]
    return prompt_ids, llm.encode(completion, add_special_tokens=False)


def _logprobs(output: RequestOutput, place: int, completion: list[int]) -> list[float]:
    if output.exception is not None:
        raise output.exception
    assert output.prompt_logprobs is not None and output.outputs[0].logprobs is not None
    given = output.prompt_logprobs[len(output.prompt_token_ids) - len(completion) + 1 :]
    entries = [*given, output.outputs[0].logprobs[0]]
    found = []
    for token_id, entry in zip(completion, entries, strict=True):
        if entry is None:
            raise RequestError(f"completion {place}: the network gave logits that are NaN or infinite")
        found.append(float(entry[token_id]))
    return found
