"""Functions that a model calls: how it is told of them, made to call them, and how its text becomes calls."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jinja2 import Environment, meta
from jinja2.exceptions import TemplateSyntaxError

from mindgen.server.errors import bad_request
from mindgen.server.protocol.chat import ChatCompletionRequest, NamedTool, Tool, ToolCall, ToolFunction
from mindgen.text.chat_template import ChatTemplates

_BEGIN, _END = "<tool_call>", "</tool_call>"  # of a call in the text, as models of the Hermes family write it
_ANY_OBJECT: dict[str, Any] = {"type": "object"}

Piece = str | ToolCall  # of a message: some of its text, or of a call


class CallReader(Protocol):
    """Finds calls in a text that comes in pieces.

    Attributes:
        finish_reason: of a message that ends by itself; None for the usual one.
    """

    finish_reason: str | None

    def add(self, text: str) -> list[Piece]: ...

    def end(self) -> list[Piece]:
        """What is left when nothing more comes."""


def asked_tools(body: ChatCompletionRequest, templates: ChatTemplates) -> list[Tool]:
    """The tools that the template is told of.

    Raises:
        ApiError: the model's template takes none, or tool_choice does not go with them.
    """
    choice = body.tool_choice
    if not body.tools:
        if choice not in (None, "none"):
            raise bad_request("tool_choice goes with tools", param="tool_choice")
        return []
    if choice == "none":
        return []
    if isinstance(choice, NamedTool) and choice.function.name not in (tool.function.name for tool in body.tools):
        raise bad_request(f"tool_choice names {choice.function.name!r}, which is none of tools", param="tool_choice")
    sources = list(templates.sources.values())
    if not any(_takes_tools(source) for source in sources):
        raise bad_request("the model's chat template takes no tools: leave them out", param="tools")
    if choice in (None, "auto") and not any(_BEGIN in source for source in sources):
        raise bad_request(
            f"the model's way to call tools is not known (its chat template has no {_BEGIN}): set tool_choice to "
            '"required", to one of the functions, or to "none"',
            param="tool_choice",
        )
    if choice in (None, "auto") and not body.parallel_tool_calls:
        raise bad_request("parallel_tool_calls false goes with tool_choice required", param="parallel_tool_calls")
    return body.tools


def tool_guide(body: ChatCompletionRequest) -> dict[str, Any] | None:
    """What the text must follow for the calls that have to come; None where none has to."""
    if isinstance(body.tool_choice, NamedTool) and body.tools:
        return {"guided_json": _parameters(_named(body.tools, body.tool_choice.function.name))}
    if body.tool_choice == "required" and body.tools:
        calls = {"type": "array", "minItems": 1, "items": {"anyOf": [_call_schema(tool) for tool in body.tools]}}
        return {"guided_json": calls if body.parallel_tool_calls else calls | {"maxItems": 1}}
    return None


def call_reader(body: ChatCompletionRequest) -> CallReader:
    if isinstance(body.tool_choice, NamedTool):
        return _NamedCall(body.tool_choice.function.name)
    if body.tools and body.tool_choice == "required":
        return _RequiredCalls()
    return _PlainText() if not body.tools or body.tool_choice == "none" else _MarkedCalls()


class _PlainText:
    finish_reason: str | None = None

    def add(self, text: str) -> list[Piece]:
        return [text] if text else []

    def end(self) -> list[Piece]:
        return []


class _NamedCall:
    """All of the text is the arguments of one call."""

    def __init__(self, name: str) -> None:
        self.finish_reason: str | None = None
        self._name: str | None = name

    def add(self, text: str) -> list[Piece]:
        if not text:
            return []
        name, self._name = self._name, None
        if name is None:
            return [ToolCall(index=0, function=ToolFunction(arguments=text))]
        return [_call(0, name, text)]

    def end(self) -> list[Piece]:
        return []


class _RequiredCalls:
    """The text is a JSON list of calls, which come when it is whole."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._text = ""

    def add(self, text: str) -> list[Piece]:
        self._text += text
        return []

    def end(self) -> list[Piece]:
        calls = _parsed(self._text)
        if not isinstance(calls, list):
            return [self._text] if self._text else []  # cut off by max_tokens
        self.finish_reason = "tool_calls"
        return [_call(index, each["name"], json.dumps(each["parameters"], ensure_ascii=False))
                for index, each in enumerate(calls)]  # fmt: skip


class _MarkedCalls:
    """Calls stand between marks in the text; what is no call is text."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._num_calls = 0
        self._held = ""  # of a call whose end has not come
        self._is_in_call = False

    def add(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        while text:
            if self._is_in_call:
                self._held += text
                inside, mark, text = self._held.partition(_END)
                if mark:
                    pieces.append(self._call_or_text(inside))
                    self._is_in_call, self._held = False, ""
                else:
                    text = ""
            else:
                before, text = self._until_mark(text)
                pieces += [before] if before else []
        return pieces

    def end(self) -> list[Piece]:
        rest = _BEGIN + self._held if self._is_in_call else self._held
        self._held = ""
        return [rest] if rest else []

    def _until_mark(self, text: str) -> tuple[str, str]:
        """The text before the next call, and what follows the call's mark; a mark's beginning is held."""
        self._held += text
        before, mark, after = self._held.partition(_BEGIN)
        if mark:
            self._is_in_call, self._held = True, ""
            return before, after
        num_held = next((n for n in range(min(len(_BEGIN), len(before)), 0, -1) if before.endswith(_BEGIN[:n])), 0)
        self._held = before[len(before) - num_held :]
        return before[: len(before) - num_held], ""

    def _call_or_text(self, inside: str) -> Piece:
        call = _parsed(inside)
        if not (isinstance(call, Mapping) and isinstance(call.get("name"), str)):
            return _BEGIN + inside + _END
        arguments = call.get("arguments", call.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        self.finish_reason = "tool_calls"
        self._num_calls += 1
        return _call(self._num_calls - 1, call["name"], text)


def _call(index: int, name: str, arguments: str) -> ToolCall:
    function = ToolFunction(name=name, arguments=arguments)
    return ToolCall(index=index, id=f"call_{uuid.uuid4().hex[:24]}", type="function", function=function)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _named(tools: Sequence[Tool], name: str) -> Tool:
    return next(tool for tool in tools if tool.function.name == name)


def _parameters(tool: Tool) -> dict[str, Any]:
    return _ANY_OBJECT if tool.function.parameters is None else tool.function.parameters


def _call_schema(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, "parameters": _parameters(tool)},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _takes_tools(source: str) -> bool:
    """Whether a template looks at a variable `tools`."""
    try:
        return "tools" in meta.find_undeclared_variables(Environment().parse(source))
    except TemplateSyntaxError:  # of an extension's statement, like {% generation %}
        return "tools" in source
