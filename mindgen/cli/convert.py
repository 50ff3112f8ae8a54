"""`mindgen convert`: a model under other names, in another kind of file or another dtype."""

import argparse
from pathlib import Path

from mindgen.store.convert import Conversion, convert_model
from mindgen.store.find_model import find_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="NAME", help="a model's folder or file, or its name")
    add("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    add("--names", choices=["huggingface", "mindformers"], default="huggingface", help="of the tensors")
    add("--format", choices=["safetensors", "ckpt"], default="safetensors", help="of the file")
    add(
        "--dtype",
        choices=["bfloat16", "float16", "float32"],
        help="of the tensors (default: as they are, and bfloat16 of quantised ones)",
    )
    add("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Writes the folder, and says what is in it.

    Raises:
        MindgenError: of whatever part refused; nothing is left then.
    """
    folder = find_model(arguments.model)
    conversion = Conversion(arguments.names, f".{arguments.format}", arguments.dtype)
    report = convert_model(folder, arguments.output, conversion)
    print(
        f"{arguments.output}: {report.num_tensors} tensors, {report.num_bytes / 1e6:.1f} MB, read back; digest "
        f"{report.digest[:12]}"
    )
    return 0
