"""`mindgen chat`: a conversation in the terminal, or through a pipe, that may change its adapter on the way."""

import argparse
import io
import sys
from collections.abc import Iterator

from mindgen.adapters.registry import BASE_NAME
from mindgen.cli import flags
from mindgen.cli.chat_session import ChatOutput, ChatSession
from mindgen.cli.launched import closing, take_part
from mindgen.errors import UsageError
from mindgen.settings import load_settings

_DEFAULT_NEW_TOKENS = 512
# They count the prompt, which grows with the conversation.
_IGNORED = ("max_length", "seq_length", "min_length")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", help="a system message to begin with")
    parser.add_argument(
        "--adapter_id", metavar="NAME", help=f"the adapter that answers at first; '{BASE_NAME}' is none"
    )
    flags.add_model_arguments(parser)
    flags.add_engine_arguments(parser)
    flags.add_sampling_arguments(parser, without=_IGNORED)


def run(arguments: argparse.Namespace, started: float) -> int:
    """Talks until the input ends or /quit.

    Raises:
        MindgenError: of whatever part refused before the conversation began.
    """
    part, settings = take_part(load_settings(arguments.config, flags.overrides(arguments)))
    if settings.engine.node_rank > 0:
        return flags.serve_if_worker(settings) or 0
    generation = flags.generation_settings(settings).model_copy(update=dict.fromkeys(_IGNORED))
    params = generation.sampling_params(_DEFAULT_NEW_TOKENS)
    busy = part.busy(settings, 1)  # there is one conversation, the first replica's
    if busy is None:
        return 0
    adapter = _adapter_id(settings.adapter_id)
    flags.check_adapters(settings, [adapter])
    exit_code = flags.serve_if_worker(busy)
    if exit_code is not None:
        return exit_code
    llm = flags.load_llm(busy)
    with closing(llm):
        print(llm.memory_plan, file=sys.stderr)
        session = ChatSession(llm, params, adapter, arguments.system, ChatOutput(sys.stdout, sys.stderr))
        for line in _lines(session):
            if not session.handle(line):
                break
    llm.close()
    return 0


def _adapter_id(given: str | list[str] | None) -> str | None:
    if isinstance(given, list) and len(given) != 1:
        raise UsageError(f"adapter_id has {len(given)} names, and one adapter begins a conversation: give one")
    name = given[0] if isinstance(given, list) else given
    return None if name == BASE_NAME else name


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
