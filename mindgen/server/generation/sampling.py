"""The sampling fields of a request as SamplingParams."""

from collections.abc import Mapping
from typing import Any

from mindgen.sampling_params import SamplingParams
from mindgen.server.errors import bad_request
from mindgen.server.protocol.chat import ChatCompletionRequest
from mindgen.server.protocol.completion import CompletionRequest
from mindgen.server.protocol.sampling import ResponseFormat, SamplingFields, StructuredOutputs
from mindgen.settings import GenerationSettings

# Fields that mean what the parameter of the same name does.
_SAME = (
    "n", "presence_penalty", "frequency_penalty", "length_penalty", "early_stopping", "use_beam_search", "seed",
    "stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens", "bad_words",
    "allowed_token_ids", "skip_special_tokens", "prompt_logprobs", "num_speculative_tokens", "priority",
)  # fmt: skip
# Fields for which the server has defaults.
DEFAULTED = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty")
_CHOOSING = {"do_sample", "eval_temperature", *DEFAULTED}
_ANY_OBJECT = {"type": "object"}


def default_sampling(generation: GenerationSettings) -> dict[str, Any]:
    """What holds for a request that does not say: the model's way to sample, and OpenAI's where it has none.

    Raises:
        RequestError: an option has a value out of its range.
    """
    params = generation.sampling_params(default_max_tokens=1)
    defaults = {name: getattr(params, name) for name in DEFAULTED}
    if not _CHOOSING & generation.model_dump(exclude_none=True).keys():
        defaults["temperature"] = 1.0
    return defaults


def completion_params(body: CompletionRequest, defaults: Mapping[str, Any], deadline: float | None) -> SamplingParams:
    """
    Args:
        deadline: in seconds from now.

    Raises:
        ApiError, RequestError: a value is out of its range, or does not go with another.
    """
    if body.max_tokens == 0 and not body.echo:
        raise bad_request("max_tokens must be at least 1, unless echo is true", param="max_tokens")
    if body.echo and body.logprobs is not None and body.prompt_logprobs is not None:
        raise bad_request("prompt_logprobs is what echo with logprobs gives: leave one out", param="prompt_logprobs")
    options = _options(body, defaults, guides(body))
    options |= {"max_tokens": max(body.max_tokens, 1), "best_of": body.best_of, "logprobs": body.logprobs}
    options["processed_logprobs"] = body.processed_logprobs
    if body.echo and body.logprobs is not None:
        options["prompt_logprobs"] = body.logprobs
    return SamplingParams(**options, deadline_seconds=deadline)


def chat_params(
    body: ChatCompletionRequest, defaults: Mapping[str, Any], deadline: float | None, guide: dict[str, Any] | None
) -> SamplingParams:
    """As completion_params.

    Args:
        guide: of a tool call that has to come, in place of what else guides; None for none.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs goes with logprobs true", param="top_logprobs")
    asked = guides(body)
    if guide is not None and asked:
        raise bad_request(f"tool_choice does not go with {next(iter(asked))}: leave one out", param="tool_choice")
    limits = (body.max_tokens, body.max_completion_tokens)
    if None not in limits and limits[0] != limits[1]:
        raise bad_request(
            "max_tokens and max_completion_tokens are the same, and differ: give one of them", param="max_tokens"
        )
    options = _options(body, defaults, asked if guide is None else guide)
    options["max_tokens"] = body.max_completion_tokens or body.max_tokens
    if body.logprobs:
        options["logprobs"] = body.top_logprobs or 0
    return SamplingParams(**options, deadline_seconds=deadline)


def guides(body: SamplingFields) -> dict[str, Any]:
    """What the text must follow, as SamplingParams has it, whichever of its names it has; empty for nothing.

    Raises:
        ApiError: there are several.
    """
    names = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
    found = [({name: getattr(body, name)}, name) for name in names if getattr(body, name) is not None]
    if body.structured_outputs is not None:
        found += [(each, "structured_outputs") for each in _structured(body.structured_outputs)]
    if body.response_format is not None and body.response_format.type != "text":
        found.append((_formatted(body.response_format), "response_format"))
    if len(found) > 1:
        (_, first), (_, second), *_ = found
        raise bad_request(f"a text follows one thing at most, not {first} and {second}: leave one out", param=second)
    return dict(found[0][0]) if found else {}


def _structured(asked: StructuredOutputs) -> list[dict[str, Any]]:
    given = {
        "guided_json": asked.json_schema,
        "guided_regex": asked.regex,
        "guided_choice": asked.choice,
        "guided_grammar": asked.grammar,
    }
    found = [{name: value} for name, value in given.items() if value is not None]
    return [*found, {"guided_json": _ANY_OBJECT}] if asked.json_object else found


def _formatted(asked: ResponseFormat) -> dict[str, Any]:
    if asked.type == "json_object":
        return {"guided_json": _ANY_OBJECT}
    if asked.json_schema is None or asked.json_schema.json_schema is None:
        raise bad_request("response_format of type json_schema has json_schema.schema", param="response_format")
    return {"guided_json": asked.json_schema.json_schema}


def _options(body: SamplingFields, defaults: Mapping[str, Any], guide: dict[str, Any]) -> dict[str, Any]:
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options goes with stream true", param="stream_options")
    options = {name: getattr(body, name) for name in _SAME}
    for name in DEFAULTED:
        given = getattr(body, name)
        options[name] = defaults[name] if given is None else given
    if body.logit_bias is not None:
        options["logit_bias"] = {_token_id(token): bias for token, bias in body.logit_bias.items()}
    return options | guide


def _token_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise bad_request(f"logit_bias has the key {text[:20]!r}, and its keys are token ids", param="logit_bias")
    return int(text)
