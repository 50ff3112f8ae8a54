"""`mindgen chat`: a conversation in the terminal, or through a pipe, that may change its adapter on the way."""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindgen import demo
from mindgen.adapters.registry import BASE_NAME
from mindgen.chat_template import load_chat_templates
from mindgen.checkpoint.hf import model_folder
from mindgen.commands.chat_session import ChatModel, ChatSession, Message
from mindgen.config import GenerationSettings, Settings, load_settings
from mindgen.errors import UsageError
from mindgen.outputs import TextChunk
from mindgen.sampling_params import SamplingParams
from mindgen.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from mindgen.llm import LLM

_DEFAULT_NEW_TOKENS = 512
_GENERATION_FLAGS = {
    "max_new_tokens": int, "temperature": float, "top_k": int, "top_p": float, "repetition_penalty": float, "seed": int,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; those whose dest is a key of the configuration override it, and have no default of their own."""
    add = parser.add_argument
    add("--config", type=Path, help="YAML configuration")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("--system", help="a system message to begin with")
    add("--adapter_id", metavar="NAME", help=f"the adapter that answers at first; '{BASE_NAME}' is none")
    add("--model", dest="model.path", metavar="DIR", help="a Hugging Face folder, or demo")
    add("--dtype", dest="model.dtype", choices=["auto", "bfloat16", "float16", "float32"])
    add(
        "--adapter_path", dest="model.pet_config.adapter_path", metavar="PATH", help="a lora_adapter.json or its folder"
    )
    add("--executor", dest="engine.executor", choices=["mindgen", "mindgen_unfused", "mindspore"], help="on the CPU")
    add("--num_threads", dest="engine.num_threads", type=int, metavar="INT", help="of the CPU kernels")
    for name, kind in _GENERATION_FLAGS.items():
        add(f"--{name}", dest=f"generation.{name}", type=kind, metavar=kind.__name__.upper())
    add("--do_sample", dest="generation.do_sample", action="store_true", default=None, help="instead of greedy")


def run(arguments: argparse.Namespace, started: float) -> None:
    """Talks until the input ends or /quit.

    Raises:
        MindgenError: of whatever part refused before the conversation began.
    """
    own = ("command", "run", "config", "debug", "system")
    overrides = {key: value for key, value in vars(arguments).items() if key not in own and value is not None}
    settings = load_settings(arguments.config, overrides)
    params = _sampling_params(settings.generation)
    model = open_chat_model(settings)
    adapter = settings.adapter_id or BASE_NAME
    if adapter != BASE_NAME and adapter not in model.adapter_names():
        known = ", ".join([BASE_NAME, *model.adapter_names()])
        raise UsageError(f"unknown adapter_id {adapter!r}; known adapters: {known}")
    session = ChatSession(
        model, params, None if adapter == BASE_NAME else str(adapter), arguments.system, sys.stdout, sys.stderr
    )
    for line in _lines(session):
        if not session.handle(line):
            break


def open_chat_model(settings: Settings) -> ChatModel:
    """The model that the settings ask for, as a conversation needs it."""
    from mindgen.llm import LLM  # starts MindSpore, which mistakes in the flags need not wait for

    llm = LLM(
        model=settings.model.path,
        adapters=settings.model.pet_config.adapter_path,
        dtype=settings.model.dtype,
        config=settings.engine,
        on_missing_adapter=settings.on_missing_adapter,
    )
    path = settings.model.path
    return _PromptedModel(llm, demo.model_folder() if path == demo.NAME else model_folder(Path(path)))


class _PromptedModel:
    """A ChatModel that lets an LLM continue the prompts that the chat template makes."""

    def __init__(self, llm: "LLM", folder: Path) -> None:
        self._llm = llm
        self._templates = load_chat_templates(folder)
        tokenizer = load_tokenizer(folder)
        # LLM.stream begins a prompt with this token itself, if the tokenizer asks for it.
        begins_itself = tokenizer.bos_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_id]
        self._added_beginning = tokenizer.special_tokens.get("bos_token", "") if begins_itself else ""

    def adapter_names(self) -> list[str]:
        return self._llm._registry.names()

    def stream_chat(
        self, messages: Sequence[Message], sampling_params: SamplingParams, adapter_id: str | None
    ) -> Iterator[TextChunk]:
        prompt = self._templates.render(messages).removeprefix(self._added_beginning)
        return self._llm.stream(prompt, sampling_params, adapter_id)


def _sampling_params(generation: GenerationSettings) -> SamplingParams:
    max_tokens = generation.max_new_tokens
    return SamplingParams(
        max_tokens=_DEFAULT_NEW_TOKENS if max_tokens is None else max_tokens,
        temperature=generation.temperature if generation.do_sample else 0.0,
        top_k=generation.top_k,
        top_p=generation.top_p,
        repetition_penalty=generation.repetition_penalty,
        seed=generation.seed,
    )


def _lines(session: ChatSession) -> Iterator[str]:
    """What is typed, line by line, or what comes through a pipe."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401  (gives input() a history)

    print("/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            yield input(f"{session.adapter_name}> ")
        except KeyboardInterrupt:
            print("\n/quit or Ctrl-D ends.", file=sys.stderr)
        except EOFError:
            print(file=sys.stderr)
            return
