"""The command line: parses, calls the commands, and turns what they raise into one line and an exit code."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module

from mindgen.errors import MindgenError

# By name: the module of mindgen.cli, which is imported when it is asked for, and what it does.
_COMMANDS = {
    "generate": ("generate", "generate text for prompts"),
    "chat": ("chat", "talk with a model"),
    "adapters": ("adapters", "look at adapters, convert and merge them"),
    "shard": ("shard", "shard a checkpoint, or join one"),
    "generate_custom": ("generate_custom", "generate with MindFormers' flags"),
    "launch": ("launch", "start one process for each device"),
    "doctor": ("doctor", "look at what this machine has"),
    "convert": ("convert", "write a model in another kind of file"),
    "pull": ("pull", "fetch a model"),
    "models": ("models", "list the models that were fetched"),
    "inspect": ("inspect_model", "say what a file or folder is, and whether it is served"),
}
_FLAG = re.compile(r"--[a-z][a-z0-9_-]*")


def _with_underscores(argument: str) -> str:
    """--max-new-tokens is --max_new_tokens."""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if _FLAG.fullmatch(name) else argument


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """Runs a command; returns the exit code: 0, 1 for what failed, 2 for wrong usage, 130 when interrupted.

    Args:
        argv: the arguments after the program's name; None takes the process's own.
        started: time.perf_counter() when the process began.
    """
    parser = argparse.ArgumentParser(prog="mindgen", description="Text generation with many LoRA adapters.")
    commands = parser.add_subparsers(dest="command", required=True)
    given = [_with_underscores(each) for each in (sys.argv[1:] if argv is None else argv)]
    run: Callable[[argparse.Namespace, float], int] | None = None
    for name, (module_name, description) in _COMMANDS.items():
        command = commands.add_parser(name, help=description, allow_abbrev=False)
        if name == next(iter(given), None):
            module = import_module(f"mindgen.cli.{module_name}")
            module.add_arguments(command)
            run = module.run
    arguments = parser.parse_args(given)
    assert run is not None, "the parser takes no arguments before the command"
    try:
        return run(arguments, time.perf_counter() if started is None else started)
    except MindgenError as error:
        if arguments.debug:
            raise
        print(f"mindgen: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder without permission
        if arguments.debug:
            raise
        print(f"mindgen: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mindgen: interrupted", file=sys.stderr)
        return 130
