"""A conversation, and the commands that change it; what it talks to is behind the ChatModel protocol."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TextIO

from mindgen.adapters.registry import BASE_NAME
from mindgen.cli.option_values import is_list, parse_value
from mindgen.errors import MindgenError, UsageError
from mindgen.outputs import TextChunk
from mindgen.sampling_params import SamplingParams
from mindgen.system.documented_fields import documented_fields
from mindgen.system.environment import deferred_interrupt
from mindgen.system.suggestion import did_you_mean

Message = dict[str, str]

_FIELDS = documented_fields(SamplingParams)


class ChatModel(Protocol):
    """What a conversation asks of a model."""

    @property
    def adapter_ids(self) -> list[str]: ...

    def stream_chat(
        self, messages: Sequence[Message], sampling_params: SamplingParams, adapter_id: str | None
    ) -> Iterable[TextChunk]:
        """The next answer as it comes; closing what it gives stops it."""


class ChatOutput:
    """What is seen of a conversation.

    Args:
        answers: where the model's words go.
        notes: where everything else goes.
    """

    def __init__(self, answers: TextIO, notes: TextIO) -> None:
        self._answers = answers
        self._notes = notes

    def show(self, text: str) -> None:
        self._answers.write(text)
        self._answers.flush()

    def note(self, text: str) -> None:
        self._notes.write(f"{text}\n")
        self._notes.flush()


class ChatSession:
    """Answers lines: commands begin with a slash, everything else is said to the model."""

    def __init__(
        self,
        model: ChatModel,
        sampling_params: SamplingParams,
        adapter_id: str | None,
        system: str | None,
        output: ChatOutput,
    ) -> None:
        self._model = model
        self._sampling_params = sampling_params
        self._adapter_id = adapter_id
        self._system = system
        self._output = output
        self._history: list[Message] = []
        self._commands: dict[str, tuple[Callable[[str], None], str]] = {
            "/adapter": (self._switch_adapter, f"NAME: let this adapter answer from now on; {BASE_NAME} is none"),
            "/adapters": (self._list_adapters, "list the adapters"),
            "/system": (self._set_system, "TEXT: what the model should know or obey; without TEXT, nothing"),
            "/reset": (self._reset, "forget the conversation"),
            "/set": (self._set_parameter, "NAME VALUE: a sampling parameter; alone, show them all"),
            "/help": (self._help, "this list"),
            "/quit": (self._help, "end; so does the end of the input"),
        }

    @property
    def adapter_name(self) -> str:
        return self._adapter_id or BASE_NAME

    def handle(self, line: str) -> bool:
        """Does what a line asks; False if it asks for the end. A user's mistake costs a line and nothing else."""
        line = line.strip()
        command, _, argument = line.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        try:
            if not line.startswith("/"):
                self._answer(line)
            elif command in self._commands:
                self._commands[command][0](argument.strip())
            else:
                raise UsageError(f"unknown command {command}{did_you_mean(command, self._commands)}; /help lists them")
        except MindgenError as error:
            self._output.note(f"error: {error}")
        return True

    def _answer(self, question: str) -> None:
        if not question:
            return
        system = [{"role": "system", "content": self._system}] if self._system else []
        said = {"role": "user", "content": question}
        answer = ""
        with deferred_interrupt() as is_interrupted:
            stream = self._model.stream_chat([*system, *self._history, said], self._sampling_params, self._adapter_id)
            try:
                for chunk in stream:
                    if chunk.output_index > 0:
                        continue
                    answer += chunk.text
                    self._output.show(chunk.text)
                    if chunk.output is not None:
                        if chunk.output.exception is not None:
                            raise chunk.output.exception
                        for warning in chunk.output.warnings:
                            self._output.note(f"warning: {warning}")
                    if is_interrupted():
                        break
            finally:
                if hasattr(stream, "close"):
                    stream.close()
                if answer:
                    self._output.show("\n")
        if is_interrupted():
            self._output.note("stopped")
        if answer or not is_interrupted():
            self._history += [said, {"role": "assistant", "content": answer}]

    def _switch_adapter(self, name: str) -> None:
        names = self._model.adapter_ids
        if not name:
            self._output.note(f"adapter: {self.adapter_name}")
        elif name in (BASE_NAME, *names):
            self._adapter_id = None if name == BASE_NAME else name
            self._output.note(f"adapter: {self.adapter_name}")
        else:
            hint = did_you_mean(name, names)
            raise UsageError(f"unknown adapter {name!r}{hint}; known adapters: {', '.join([BASE_NAME, *names])}")

    def _list_adapters(self, _: str) -> None:
        for name in [BASE_NAME, *self._model.adapter_ids]:
            self._output.note(f"{'*' if name == self.adapter_name else ' '} {name}")

    def _set_system(self, text: str) -> None:
        self._system = text or None
        self._output.note(f"system: {self._system or '(none)'}")

    def _reset(self, _: str) -> None:
        self._history = []
        self._output.note("the conversation begins anew")

    def _set_parameter(self, argument: str) -> None:
        name, _, value = (part.strip() for part in argument.partition(" "))
        if not name:
            for field in _FIELDS:
                self._output.note(f"{field} = {getattr(self._sampling_params, field)}")
            return
        if name not in _FIELDS:
            raise UsageError(f"unknown parameter {name!r}{did_you_mean(name, _FIELDS, 0)}; /set lists them")
        kind = _FIELDS[name].kind
        texts = value.split(";") if is_list(kind) and not value.startswith("[") else [value]
        parsed = parse_value(name, kind, [text for text in texts if text] or [""])
        self._sampling_params = dataclasses.replace(self._sampling_params, **{name: parsed})
        self._output.note(f"{name} = {getattr(self._sampling_params, name)}")

    def _help(self, _: str) -> None:
        for command, (_action, description) in self._commands.items():
            self._output.note(f"{command:10} {description}")
