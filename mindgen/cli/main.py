"""The command line: parses, calls the commands, and turns what they raise into one line and an exit code."""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence

from mindgen.cli import (
    adapters,
    chat,
    convert,
    convert_weight,
    doctor,
    generate,
    generate_custom,
    inspect_model,
    launch,
    models,
    pull,
    shard,
)
from mindgen.errors import MindgenError

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
    generate.add_arguments(commands.add_parser("generate", help="generate text for prompts", allow_abbrev=False))
    chat.add_arguments(commands.add_parser("chat", help="talk with a model", allow_abbrev=False))
    adapters.add_arguments(
        commands.add_parser("adapters", help="look at adapters, convert and merge them", allow_abbrev=False)
    )
    shard.add_arguments(commands.add_parser("shard", help="shard a checkpoint, or join one", allow_abbrev=False))
    generate_custom.add_arguments(
        commands.add_parser("generate_custom", help="generate with MindFormers' flags", allow_abbrev=False)
    )
    launch.add_arguments(commands.add_parser("launch", help="start one process for each device", allow_abbrev=False))
    doctor.add_arguments(commands.add_parser("doctor", help="look at what this machine has", allow_abbrev=False))
    convert.add_arguments(
        commands.add_parser("convert", help="write a model in another kind of file", allow_abbrev=False)
    )
    convert_weight.add_arguments(
        commands.add_parser("convert_weight", help="convert with MindFormers' flags", allow_abbrev=False)
    )
    pull.add_arguments(commands.add_parser("pull", help="fetch a model", allow_abbrev=False))
    models.add_arguments(commands.add_parser("models", help="list the models that were fetched", allow_abbrev=False))
    inspect_model.add_arguments(
        commands.add_parser(
            "inspect", help="say what a file or folder is, and whether it is served", allow_abbrev=False
        )
    )
    arguments = parser.parse_args([_with_underscores(each) for each in (sys.argv[1:] if argv is None else argv)])
    modules = {
        "generate": generate, "chat": chat, "adapters": adapters, "generate_custom": generate_custom,
        "launch": launch, "doctor": doctor, "shard": shard,
        "pull": pull, "models": models, "inspect": inspect_model, "convert": convert,
        "convert_weight": convert_weight,
    }  # fmt: skip
    run = modules[arguments.command].run
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
