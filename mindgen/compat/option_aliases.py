"""Sampling options with the names of MindFormers and ChatLearn, translated to SamplingParams."""

from collections.abc import Mapping
from typing import Any

from mindgen.errors import RequestError
from mindgen.sampling_params import SamplingParams, field_names
from mindgen.system.checks import require_text, to_integer, to_truth
from mindgen.system.documented_fields import DocumentedField, documented_fields
from mindgen.system.suggestion import closest

_RENAMED = {"min_new_tokens": "min_tokens", "num_return_sequences": "n"}
_EVALUATION = {"eval_temperature": "temperature", "eval_top_k": "top_k", "eval_top_p": "top_p"}
_ALIASES = {
    "max_length": DocumentedField(int, "tokens of prompt and output together, at most"),
    "max_new_tokens": DocumentedField(int, "max_tokens; goes before max_length"),
    "min_length": DocumentedField(int, "tokens of prompt and output together, at least"),
    "min_new_tokens": DocumentedField(int, "min_tokens"),
    "do_sample": DocumentedField(bool, "sample; False is greedy, whatever the temperature"),
    "num_beams": DocumentedField(int, "the width of a beam search; 1 is none"),
    "num_return_sequences": DocumentedField(int, "n"),
    "stop_token_list": DocumentedField(str, "stop, as texts between semicolons"),
    "new_token_limit": DocumentedField(
        bool | int, "True: max_new_tokens counts; False: only seq_length does; or the limit itself"
    ),
    "seq_length": DocumentedField(int, "ChatLearn's max_length"),
    "eval_temperature": DocumentedField(float, "temperature, when evaluating"),
    "eval_top_k": DocumentedField(int, "top_k, when evaluating"),
    "eval_top_p": DocumentedField(float, "top_p, when evaluating"),
}
# All the names that say how much is generated: whoever gives one of them means none of the others.
LENGTH_OPTIONS = ("max_tokens", "max_length", "max_new_tokens", "new_token_limit", "seq_length")


def sampling_options() -> dict[str, DocumentedField]:
    """All names that `translate_options` takes."""
    return documented_fields(SamplingParams) | _ALIASES


def translate_options(options: Mapping[str, Any], prompt_len: int = 0, *, evaluation: bool = False) -> SamplingParams:
    """The parameters that options of any mix of the three systems mean.

    MindFormers: max_length (prompt included), max_new_tokens (goes before it), min_length, min_new_tokens, do_sample
    (False is greedy), num_beams, num_return_sequences. ChatLearn: stop_token_list ("a;b;c"), new_token_limit (True:
    max_new_tokens counts; False: only seq_length does, prompt included; or a number), and eval_temperature,
    eval_top_k, eval_top_p, which replace the others' values when evaluating. All other names are vLLM's. None is as
    good as not given.

    Args:
        prompt_len: tokens of the prompt, of which those counts need to know that include it.
        evaluation: whether the options are those of an evaluation.

    Raises:
        RequestError: an option is unknown, or has a value out of its range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    own = field_names()
    _refuse_unknown(given, [*own, *_ALIASES])
    params = {name: value for name, value in given.items() if name in own}
    params.update({_RENAMED[name]: value for name, value in given.items() if name in _RENAMED})
    if evaluation:
        params.update({_EVALUATION[name]: value for name, value in given.items() if name in _EVALUATION})
    if "do_sample" in given and not to_truth("do_sample", given["do_sample"]):
        params["temperature"] = 0.0
    if to_integer("num_beams", given.get("num_beams", 1), 1) > 1:
        params |= {"use_beam_search": True, "best_of": given["num_beams"]}
    if "stop_token_list" in given:
        require_text("stop_token_list", given["stop_token_list"])
        params["stop"] = [text for text in given["stop_token_list"].split(";") if text]
    if "min_length" in given and "min_new_tokens" not in given:
        params["min_tokens"] = max(to_integer("min_length", given["min_length"], 0) - prompt_len, 0)
    return SamplingParams(**(params | _max_tokens(given, prompt_len)))


def evaluation_params(options: Mapping[str, Any], prompt_len: int = 0) -> SamplingParams:
    """The parameters of the evaluation set: as `translate_options`, with the values of eval_*."""
    return translate_options(options, prompt_len, evaluation=True)


def _max_tokens(given: Mapping[str, Any], prompt_len: int) -> dict[str, Any]:
    limit = given.get("new_token_limit")
    if "max_tokens" in given:
        return {}
    if limit is not None and not isinstance(limit, bool):
        return {"max_tokens": limit}
    if limit is not False and "max_new_tokens" in given:
        return {"max_tokens": given["max_new_tokens"]}
    if limit is True:
        raise RequestError("new_token_limit needs max_new_tokens, the limit")
    for name in ("max_length", "seq_length"):
        if name in given:
            length = to_integer(name, given[name])
            if length <= prompt_len:
                raise RequestError(f"{name} {length} leaves nothing to generate: the prompt has {prompt_len}")
            return {"max_tokens": length - prompt_len}
    return {} if limit is None else {"max_tokens": None}


def _refuse_unknown(given: Mapping[str, Any], known: list[str]) -> None:
    for name in given:
        if name not in known:
            nearest = closest(name, known, 0)
            raise RequestError(f"unknown sampling option {name!r}; did you mean {nearest!r}?")
