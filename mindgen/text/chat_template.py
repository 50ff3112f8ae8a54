"""Conversations to prompts, through the chat templates that models bring along."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateError, TemplateNotFound, TemplateSyntaxError

from mindgen.errors import ModelError, RequestError
from mindgen.system.json_file import read_json_object
from mindgen.system.text_file import read_text_file
from mindgen.text.template_sandbox import BoundedSandbox, TemplateRefusal
from mindgen.text.tokenizer_config import read_special_tokens, read_tokenizer_config

_DEFAULT = "default"
_WITH_TOOLS = "tool_use"
_FILE = "chat_template.jinja"
_PROCESSOR_FILE = "chat_template.json"
_FOLDER = "additional_chat_templates"


class ChatTemplates:
    """A model's chat templates by name, most have one; templates see the special tokens as variables.

    Args:
        sources: name to jinja2 source.
        special_tokens: {"bos_token": "<s>", ...}.
        origin: what to call the model in errors.
    """

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str], origin: str) -> None:
        self.sources = dict(sources)
        self._special_tokens = dict(special_tokens)
        self._origin = origin
        self._sandbox = BoundedSandbox()
        self._compiled: dict[str, Template] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        return list(self.sources)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt of a conversation; it holds its special tokens, so none are to be added when it is encoded.

        Args:
            messages: each with "role" ("system", "user", "assistant", "tool") and "content".
            add_generation_prompt: end with the beginning of the assistant's next message.
            tools: JSON schemas of functions.
            name: of a template; None takes the one for tools if there are tools, else the default.
            variables: what else the template may know, like enable_thinking.

        Raises:
            RequestError: the model has no such template, or its template refuses these messages.
            ModelError: the template is broken or hostile.
        """
        _check_messages(messages)
        chosen = self._choose(name, bool(tools))
        known = self._special_tokens | {
            "messages": list(messages),
            "tools": list(tools) if tools else None,
            "documents": list(documents) if documents else None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            with self._lock:
                return self._sandbox.render(self._compile(chosen), known | variables)
        except TemplateRefusal as error:
            raise RequestError(f"the chat template of {self._origin} refuses the messages: {error}") from error
        except TemplateNotFound as error:
            raise ModelError(f"the chat template of {self._origin} wants another template, {error}") from error
        except TemplateSyntaxError as error:
            raise ModelError(f"the chat template of {self._origin}, line {error.lineno}: {error.message}") from error
        except SecurityError as error:
            raise ModelError(f"the chat template of {self._origin} is refused, for it is unsafe: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise ModelError(
                f"the chat template of {self._origin} is refused, for it does not end: {error!r}"
            ) from error
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise RequestError(f"the chat template of {self._origin} fails on the messages: {error}") from error

    def _choose(self, name: str | None, has_tools: bool) -> str:
        if not self.sources:
            raise RequestError(
                f"{self._origin} has no chat template: it takes plain prompts, unless you add a {_FILE} to its folder"
            )
        if name is None:
            name = _WITH_TOOLS if has_tools and _WITH_TOOLS in self.sources else _DEFAULT
        if name not in self.sources:
            raise RequestError(f"{self._origin} has no chat template {name!r}; it has {', '.join(self.sources)}")
        return name

    def _compile(self, name: str) -> Template:
        if name not in self._compiled:
            self._compiled[name] = self._sandbox.from_string(self.sources[name])
        return self._compiled[name]


def template_paths(folder: Path) -> list[Path]:
    """The files of the folder that hold chat templates and nothing else."""
    files = [folder / _FILE, folder / _PROCESSOR_FILE, *sorted((folder / _FOLDER).glob("*.jinja"))]
    return [path for path in files if path.is_file()]


def load_chat_templates(folder: Path, special_tokens: Mapping[str, str] | None = None) -> ChatTemplates:
    """The templates of a model folder; there may be none. Those in files of their own stand for those of
    tokenizer_config.json, and these for the one of chat_template.json.

    Args:
        special_tokens: the tokenizer's; None takes those that the configuration names.

    Raises:
        ModelError: a file is damaged.
    """
    config = read_tokenizer_config(folder)
    files = {path.stem: path for path in sorted((folder / _FOLDER).glob("*.jinja"))}
    if (folder / _FILE).is_file():
        files[_DEFAULT] = folder / _FILE
    if files:
        sources = {name: read_text_file(path, ModelError, "the chat template") for name, path in files.items()}
    else:
        given = config.get("chat_template")
        if given is None and (folder / _PROCESSOR_FILE).is_file():
            given = read_json_object(folder / _PROCESSOR_FILE, ModelError).get("chat_template")
        sources = _named_sources(given, folder)
    known = read_special_tokens(config) if special_tokens is None else special_tokens
    return ChatTemplates(sources, known, folder.name)


def _named_sources(given: Any, folder: Path) -> dict[str, str]:
    if given is None or isinstance(given, str):
        return {} if given is None else {_DEFAULT: given}
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in given}
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder}: chat_template must be a text or a list of named templates") from error


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    if isinstance(messages, (str, Mapping)) or not messages:
        raise RequestError("messages must be a list like [{'role': 'user', 'content': 'Hello'}], with one at least")
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError(f"a message must have a role and content, like {{'role': 'user', ...}}, not {message!r}")
