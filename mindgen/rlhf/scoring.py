"""Log-probabilities of given tokens, teacher-forced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mindgen.errors import RequestError
from mindgen.llm import LLM
from mindgen.loop.request_reader import Prompt
from mindgen.outputs import RequestOutput
from mindgen.sampling_params import SamplingParams
from mindgen.system.checks import shown, to_token_ids

Completion = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each token of a completion.

    Attributes:
        logprobs: the network's own.
        processed_logprobs: in the distribution that the sampling parameters make of it; -inf of a token that could not
            have been drawn.
    """

    logprobs: list[float]
    processed_logprobs: list[float]


def score(
    llm: LLM,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    adapter_ids: str | Sequence[str | None] | None = None,
    sampling_params: SamplingParams | None = None,
) -> list[Scores]:
    """The log-probabilities of each token of each completion, after its prompt and the tokens before.

    On the engine that has generated a completion these are, to the bit, its `logprobs` and `processed_logprobs`: CPU
    kernels compute a row the same way whatever stands beside it, so the difference of a replay is exactly 0.

    Args:
        prompts: texts or lists of token ids.
        completions: token ids as `CompletionOutput.token_ids` holds them; or texts, whose tokens need not be those that
            they were generated as.
        adapter_ids: one for all, or one for each prompt; None is the base model.
        sampling_params: that the completions were drawn with; None is temperature 1 and no filter.

    Raises:
        RequestError: the lists are of different lengths, a completion is empty, prompt and completion are together
            longer than the context, or the parameters are those of a beam search or of guided output.
        UnknownAdapterError: there is no such adapter.
    """
    if isinstance(prompts, str) or isinstance(completions, str) or len(prompts) != len(completions):
        raise RequestError("score needs a list of prompts and a list of as many completions")
    pairs = [scored_tokens(llm, *pair) for pair in zip(prompts, completions, strict=True)]
    drawn = SamplingParams() if sampling_params is None else sampling_params
    if not isinstance(drawn, SamplingParams):
        raise RequestError(f"score takes one SamplingParams for all, not {shown(drawn)}")
    params = [forced_params(drawn, place, each) for place, (_, each) in enumerate(pairs)]
    outputs = llm.generate([prompt for prompt, _ in pairs], params, adapter_ids) if pairs else []
    return [scores_of(output) for output in outputs]


def scored_tokens(llm: LLM, prompt: Prompt, completion: Completion) -> tuple[list[int], list[int]]:
    """Of a prompt and its completion; of a text and the text that goes on with it those of both together, as long as
    they begin with the former's.

    Raises:
        RequestError: one is neither a text nor token ids.
    """
    if isinstance(prompt, Mapping):
        prompt = prompt.get("prompt_token_ids") or prompt.get("prompt") or ""
    prompt_ids = llm.tokenizer.encode(prompt) if isinstance(prompt, str) else to_token_ids("the prompt", prompt)
    if not isinstance(completion, str):
        return prompt_ids, to_token_ids("the completion", completion)
    whole = llm.tokenizer.encode(prompt + completion) if isinstance(prompt, str) else []
    if whole and whole[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, whole[len(prompt_ids) :]
    return prompt_ids, llm.tokenizer.encode(completion, add_special_tokens=False)


def forced_params(drawn: SamplingParams, place: int, completion: list[int]) -> SamplingParams:
    """Parameters that a completion was drawn with, as those of a request that gives this completion, scored.

    Args:
        place: among the completions, which the error names.

    Raises:
        RequestError: it is empty.
    """
    if not completion:
        raise RequestError(f"completion {place} is empty: expected at least one token")
    return replace(
        drawn,
        n=1,
        best_of=None,
        stop=(),
        max_tokens=len(completion),
        min_tokens=min(drawn.min_tokens, len(completion)),
        forced_token_ids=completion,
        logprobs=0,
        prompt_logprobs=None,
        processed_logprobs=True,
    )


def scores_of(output: RequestOutput) -> Scores:
    """Of a request that was made with `forced_params`; raises what has made it fail."""
    if output.exception is not None:
        raise output.exception
    (completion,) = output.outputs
    assert completion.logprobs is not None and completion.processed_logprobs is not None
    pairs = zip(completion.token_ids, completion.logprobs, strict=True)
    return Scores([float(entry[token]) for token, entry in pairs], completion.processed_logprobs)
