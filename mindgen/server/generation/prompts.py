"""Prompts of requests to tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindgen.server.errors import ApiError, bad_request
from mindgen.server.protocol.chat import ChatCompletionRequest, ChatMessage, Tool
from mindgen.server.protocol.completion import CompletionRequest
from mindgen.server.protocol.models import TokenizeRequest
from mindgen.system.checks import require_text, require_tokens
from mindgen.system.json_file import with_unique_keys
from mindgen.text.chat_template import ChatTemplates
from mindgen.text.tokenizer import Tokenizer

# What a request may not set by chat_template_kwargs, for it has fields of its own, or the server decides.
_NO_VARIABLES = ("messages", "tools", "documents", "name", "add_generation_prompt", "chat_template")


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """
    Attributes:
        text: as it was given; None where only tokens were.
    """

    text: str | None
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class _Room:
    """What a prompt has to leave.

    Attributes:
        prompt_field, limit_field: of the request, which errors name.
    """

    prompt_field: str
    limit_field: str
    max_tokens: int


class Prompts:
    """Any thread may call; long prompts take their time.

    Args:
        max_model_len: tokens of prompt and output together.
        vocab_size: token ids are below it.
    """

    def __init__(self, tokenizer: Tokenizer, templates: ChatTemplates, max_model_len: int, vocab_size: int) -> None:
        self._tokenizer, self._templates = tokenizer, templates
        self._max_model_len, self._vocab_size = max_model_len, vocab_size

    def of_completion(self, body: CompletionRequest) -> list[TokenizedPrompt]:
        """
        Raises:
            ApiError: one is empty, or leaves no room for max_tokens.
            RequestError: one is no text, or none of this vocabulary.
        """
        has_special_tokens = body.add_special_tokens is not False
        prompts = [self._of(each, has_special_tokens) for each in _several(body.prompt)]
        room = _Room("prompt", "max_tokens", body.max_tokens)
        return [self._fitted(each, body.truncate_prompt_tokens, room) for each in prompts]

    def of_chat(self, body: ChatCompletionRequest, tools: Sequence[Tool]) -> TokenizedPrompt:
        """
        Args:
            tools: those that the template is told of.

        Raises:
            ApiError: what the template is told does not fit, or its text leaves no room for max_tokens.
            RequestError: the model has no chat template, or its template refuses the messages.
        """
        if body.continue_final_message and body.add_generation_prompt:
            raise bad_request(
                "continue_final_message goes with add_generation_prompt false", param="continue_final_message"
            )
        text = self._rendered(
            body.messages, tools, body.add_generation_prompt, body.documents, body.chat_template_kwargs
        )
        if body.continue_final_message:
            text = _without_end(text, body.messages[-1])
        prompt = self._of(text, body.add_special_tokens is True)
        name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        room = _Room("messages", name, body.max_completion_tokens or body.max_tokens or 1)
        return self._fitted(prompt, body.truncate_prompt_tokens, room)

    def of_tokenize(self, body: TokenizeRequest) -> list[int]:
        """The tokens of a prompt or of messages; raises as the others do, but there is room for any number."""
        if (body.prompt is None) == (body.messages is None):
            raise bad_request("give prompt or messages, one of them", param="prompt")
        if body.messages is None:
            return self._tokenizer.encode(body.prompt or "", body.add_special_tokens is not False)
        text = self._rendered(body.messages, body.tools or [], body.add_generation_prompt, None, {})
        return self._tokenizer.encode(text, body.add_special_tokens is True)

    def _of(self, given: str | list[int], has_special_tokens: bool) -> TokenizedPrompt:
        if not given:
            raise bad_request("prompt must not be empty: expected some text, or token ids", param="prompt")
        if not isinstance(given, str):
            require_tokens("prompt", given, self._vocab_size)
            return TokenizedPrompt(None, given)
        require_text("prompt", given)
        return TokenizedPrompt(given, self._tokenizer.encode(given, has_special_tokens))

    def _fitted(self, prompt: TokenizedPrompt, truncate: int | None, room: _Room) -> TokenizedPrompt:
        if truncate is not None and len(prompt.token_ids) > truncate:
            prompt = TokenizedPrompt(None, prompt.token_ids[-truncate:])
        num_tokens, most = len(prompt.token_ids), self._max_model_len
        if num_tokens + max(room.max_tokens, 1) > most:
            raise bad_request(
                f"This model's maximum context length is {most} tokens. However, you requested "
                f"{num_tokens + room.max_tokens} tokens ({num_tokens} in the prompt, {room.max_tokens} for the "
                f"completion). Please reduce the length of the prompt, or {room.limit_field}.",
                param=room.limit_field if num_tokens < most else room.prompt_field,
                code="context_length_exceeded",
            )
        return prompt

    def _rendered(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool],
        add_generation_prompt: bool,
        documents: list[dict[str, Any]] | None,
        variables: dict[str, Any],
    ) -> str:
        reserved = [name for name in variables if name in _NO_VARIABLES]
        if reserved:
            raise bad_request(f"chat_template_kwargs must not set {reserved[0]}", param="chat_template_kwargs")
        return self._templates.render(
            [_plain(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            tools=[tool.model_dump(exclude_none=True) for tool in tools] or None,
            documents=documents,
            **variables,
        )


def _several(prompt: str | list[int] | list[str] | list[list[int]]) -> list[Any]:
    """As a list of prompts."""
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return prompt


def _plain(message: ChatMessage) -> dict[str, Any]:
    """A message as templates know them: texts for contents, objects for the arguments of calls."""
    plain = message.model_dump(exclude_none=True)
    if isinstance(message.content, list):
        plain["content"] = "\n".join(part.text for part in message.content)
    elif message.content is None:
        plain["content"] = ""
    for call in plain.get("tool_calls", ()):
        call["function"]["arguments"] = _arguments(call["function"]["arguments"])
    return plain


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}", object_pairs_hook=with_unique_keys)
    except (ValueError, RecursionError) as error:
        raise _bad_arguments() from error
    if not isinstance(value, dict):
        raise _bad_arguments()
    return value


def _bad_arguments() -> ApiError:
    return bad_request("messages: the arguments of a tool call must be a JSON object", param="messages")


def _without_end(text: str, message: ChatMessage) -> str:
    """A conversation's text as far as its last message goes, for the model to go on with it."""
    content = str(_plain(message)["content"]).strip()
    place = text.rfind(content) if content else -1
    if place < 0:
        raise bad_request("the chat template does not show the final message as it is", param="continue_final_message")
    return text[: place + len(content)]
