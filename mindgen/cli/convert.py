"""`mindgen convert`: a model under other names, in another kind of file or another dtype."""

import argparse
from pathlib import Path

from mindgen.store.convert import Conversion, ConversionReport, convert_model, model_source
from mindgen.store.find_model import find_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="NAME", help="a model's folder or file, or its name")
    add(
        "--output",
        type=Path,
        required=True,
        metavar="TARGET",
        help="a new folder, or a file that ends as the format does and has the weights alone (all of it as GGUF)",
    )
    add(
        "--names",
        choices=["huggingface", "mindformers"],
        default="huggingface",
        help="of the tensors; GGUF has its own",
    )
    add("--format", choices=["safetensors", "ckpt", "gguf"], default="safetensors", help="of the file")
    add(
        "--dtype",
        choices=["bfloat16", "float16", "float32", "q8_0"],
        help="of the tensors, in GGUF of the matrices, where q8_0 is one more (default: as they are, and bfloat16 of "
        "quantised ones)",
    )
    add("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Writes the folder, and says what is in it.

    Raises:
        MindgenError: of whatever part refused; nothing is left then.
    """
    conversion = Conversion(arguments.names, f".{arguments.format}", arguments.dtype)
    report = convert_model(model_source(find_model(arguments.model)), arguments.output, conversion)
    print(f"{arguments.output}: {describe(report)}")
    return 0


def describe(report: ConversionReport) -> str:
    """What was written, in a line."""
    kept = f" ({report.num_kept} of them by an earlier try)" if report.num_kept else ""
    return (
        f"{report.num_tensors} tensors{kept}, {report.num_bytes / 1e6:.1f} MB, read back; digest {report.digest[:12]}"
    )
