"""The command line: parses, calls the commands, and turns what they raise into one line and an exit code."""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mindgen.errors import MindgenError

# By name: the module of mindgen.cli, which is imported when it is asked for, and what it does.
_COMMANDS = {
    "generate": ("generate", "generate text for prompts"),
    "chat": ("chat", "talk with a model"),
    "batch": ("batch", "answer all rows of a file"),
    "batch status": ("batch_status", "say how far such a job is"),
    "batch split": ("batch_split", "share rows among several files"),
    "batch merge": ("batch_merge", "join the outputs of several jobs"),
    "batch compare": ("batch_compare", "compare the outputs of two jobs"),
    "serve": ("serve", "answer over HTTP, as OpenAI's API does"),
    "adapters": ("adapters", "look at adapters, convert and merge them"),
    "pull": ("pull", "fetch a model"),
    "models": ("models", "list the models that were fetched"),
    "inspect": ("inspect_model", "say what a file or folder is, and whether it is served"),
    "convert": ("convert", "write a model in another kind of file"),
    "convert_weight": ("convert_weight", "convert with MindFormers' flags"),
    "generate_custom": ("generate_custom", "generate with MindFormers' flags"),
    "shard": ("shard", "shard a checkpoint, or join one"),
    "launch": ("launch", "start one process for each device"),
    "doctor": ("doctor", "look at what this machine has"),
}
_FLAG = re.compile(r"--[a-z][a-z0-9_-]*")


def _with_underscores(argument: str) -> str:
    """--max-new-tokens is --max_new_tokens."""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if _FLAG.fullmatch(name) else argument


def _command_and_rest(words: list[str]) -> tuple[str, list[str]]:
    """A command may be two words."""
    two = " ".join(words[:2])
    return (two, words[2:]) if two in _COMMANDS else (next(iter(words), ""), words[1:])


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """Runs a command; returns the exit code: 0, 1 for what failed, 2 for wrong usage, 130 when interrupted.

    Args:
        argv: the arguments after the program's name; None takes the process's own.
        started: time.perf_counter() when the process began.
    """
    parser = argparse.ArgumentParser(prog="mindgen", description="Text generation with many LoRA adapters.")
    commands = parser.add_subparsers(dest="command", required=True)
    name, rest = _command_and_rest(sys.argv[1:] if argv is None else list(argv))
    module: Any = None
    for each, (module_name, purpose) in _COMMANDS.items():
        command = commands.add_parser(each, help=purpose, allow_abbrev=False)
        if each == name:
            module = import_module(f"mindgen.cli.{module_name}")
            module.add_arguments(command)
    arguments, words = parser.parse_known_args([name, *map(_with_underscores, rest)] if name else [])
    if words and (name != "batch" or any(word.startswith("-") for word in words)):
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    if words:  # the settings of a batch job may stand between its flags
        arguments.words += words
    try:
        return module.run(arguments, time.perf_counter() if started is None else started)
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
