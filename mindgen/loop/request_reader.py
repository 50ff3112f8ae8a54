"""What a call asks for, request by request: each is checked for itself, and a bad one says why it is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any, TypeAlias

import numpy as np

from mindgen.errors import MindgenError, RequestError, as_request_error
from mindgen.sampling_params import SamplingParams
from mindgen.system.checks import require_text, shown, to_token_ids
from mindgen.text.guided import read_guide, schema_text

# Text, or token ids, or either as {"prompt": ...} or {"prompt_token_ids": [...]}.
Prompt: TypeAlias = str | Sequence[int] | Mapping[str, Any]

_EXPECTED = "a text, a list of token ids, or a dictionary with prompt or prompt_token_ids"
_KEYS = ("prompt", "prompt_token_ids")


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request in the form that an engine of any process takes.

    Attributes:
        prompt: its text; None where only the tokens are known, or it is no text.
        token_ids: None for those of the text.
        error: why it is refused.
    """

    prompt: str | None = None
    token_ids: list[int] | None = None
    params: SamplingParams = field(default_factory=SamplingParams)
    adapter_id: str | None = None
    error: MindgenError | None = None


def read_requests(prompts: Any, sampling_params: Any, adapter_ids: Any) -> list[CheckedRequest]:
    """Of one prompt or several, with one value for all of them or one for each.

    Args:
        prompts, sampling_params: an error in the place of one says why there is none, and refuses the request.

    Raises:
        RequestError: there is no list of prompts, or a list of something else is not as long.
    """
    prompts = _list_of_prompts(prompts)
    params = _for_each(prompts, SamplingParams() if sampling_params is None else sampling_params, "sampling_params")
    adapters = _for_each(prompts, adapter_ids, "adapter_ids")
    return [read_request(*each) for each in zip(prompts, params, adapters, strict=True)]


def read_request(prompt: Any, params: Any, adapter_id: Any) -> CheckedRequest:
    text = _known_text(prompt)
    known_id = str(adapter_id) if _is_text(adapter_id) else None
    try:
        text, token_ids = _read_prompt(prompt)
        params = _read_params(params)
        if adapter_id is not None:
            require_text("adapter_id", adapter_id)
    except Exception as error:
        return CheckedRequest(text, adapter_id=known_id, error=as_request_error(error, "reading the request"))
    return CheckedRequest(text, token_ids, params, known_id)


def _list_of_prompts(prompts: Any) -> list[Any]:
    if hasattr(prompts, "tolist"):
        prompts = prompts.tolist()
    if isinstance(prompts, (str, Mapping, MindgenError)):
        return [prompts]
    if isinstance(prompts, (bytes, bytearray, memoryview)) or not isinstance(prompts, Sequence):
        raise RequestError(f"prompts must be {_EXPECTED}, or a list of these, not {shown(prompts)}")
    is_single = len(prompts) > 0 and all(isinstance(each, (Number, np.generic)) for each in prompts)
    return [prompts] if is_single else list(prompts)


def _for_each(prompts: list[Any], values: Any, name: str) -> list[Any]:
    """One value for each prompt, from a single one or a list."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        return [values] * len(prompts)
    if len(values) != len(prompts):
        raise RequestError(f"{name} has {len(values)} entries for {len(prompts)} prompts")
    return list(values)


def _read_prompt(prompt: Any) -> tuple[str | None, list[int] | None]:
    """Its text, if known, and its tokens, unless they are the text's."""
    if isinstance(prompt, MindgenError):
        raise prompt
    if isinstance(prompt, str):
        prompt = {"prompt": prompt}
    elif not isinstance(prompt, Mapping):
        if not hasattr(prompt, "tolist") and not isinstance(prompt, Sequence) and prompt is not None:
            raise RequestError(f"a prompt must be {_EXPECTED}, not {shown(prompt)}")
        prompt = {"prompt_token_ids": prompt}
    unknown = [key for key in prompt if key not in _KEYS]
    if unknown:
        raise RequestError(f"a prompt has {' and '.join(_KEYS)}, and no {shown(unknown[0])}")
    text, token_ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
    if (text is None and token_ids is None) or (isinstance(text, str) and not text and token_ids is None):
        raise RequestError("the prompt is empty: expected some text, or token ids")
    if text:
        require_text("the prompt", text)
    return (str(text) if text else None), None if token_ids is None else to_token_ids("the prompt", token_ids)


def _read_params(params: Any) -> SamplingParams:
    if isinstance(params, MindgenError):
        raise params
    if not isinstance(params, SamplingParams):
        raise RequestError(f"sampling_params must be a SamplingParams, or a list of them, not {shown(params)}")
    read_guide(params.guided_json, params.guided_regex, params.guided_choice, params.guided_grammar)
    if params.guided_json is not None:
        params = replace(params, guided_json=schema_text(params.guided_json))
    return params


def _known_text(prompt: Any) -> str | None:
    text = prompt.get("prompt") if isinstance(prompt, Mapping) else prompt
    return str(text) if _is_text(text) else None


def _is_text(value: Any) -> bool:
    try:
        require_text("it", value)
    except RequestError:
        return False
    return True
