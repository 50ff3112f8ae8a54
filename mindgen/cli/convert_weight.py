"""`mindgen convert_weight`: MindFormers' convert_weight.py, which writes a file under its names, or Hugging Face's."""

import argparse
from pathlib import Path

from mindgen.cli.convert import describe
from mindgen.errors import UsageError
from mindgen.store.convert import Conversion, convert_model, weights_source
from mindgen.weights.architecture import architectures

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "yi": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_5": "Qwen2ForCausalLM",
    "gpt": "GPT2LMHeadModel",
}
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DTYPES_OF_MODELS = {"qwen2_5": "bf16"}  # what MindFormers takes where nothing is said; else tensors stay as they are
_SUFFIXES = (".ckpt", ".safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help=f"its kind: {', '.join(_ARCHITECTURES)}")
    add("--reversed", action="store_true", help="from MindFormers' names to Hugging Face's")
    add("--input_path", required=True, type=Path, metavar="PATH", help="a model's folder, or a file of its weights")
    add("--output_path", required=True, type=Path, metavar="FILE", help="a new .ckpt or .safetensors")
    add("--dtype", choices=_DTYPES, help="of the tensors (default: as they are; bf16 for qwen2_5)")
    add("--layers", type=int, metavar="N", help="how many there have to be; all are converted")
    add("--qkv_concat", default="False", metavar="BOOL", help="only False: fused weights are not written")
    add("--is_pretrain", default="False", metavar="BOOL", help="only False: it is for swin")
    add("--telechat_type", metavar="NAME", help="not served: it is for telechat")
    add("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Writes the file, and says what is in it.

    Raises:
        MindgenError: of whatever part refused; nothing is left then.
    """
    if arguments.model not in _ARCHITECTURES:
        raise UsageError(f"--model {arguments.model} is not served; served are {', '.join(_ARCHITECTURES)}")
    _refuse_others(arguments)
    source = weights_source(arguments.input_path, architectures()[_ARCHITECTURES[arguments.model]])
    num_layers = source.num_layers()
    if arguments.layers not in (None, num_layers):
        raise UsageError(f"--layers {arguments.layers}: {arguments.input_path} has {num_layers}, and all are converted")
    target = _target(arguments.output_path, arguments.reversed)
    dtype = _DTYPES.get(arguments.dtype or _DTYPES_OF_MODELS.get(arguments.model, ""))
    names = "huggingface" if arguments.reversed else "mindformers"
    report = convert_model(source, target, Conversion(names, target.suffix, dtype))
    print(f"{target}: {describe(report)}")
    return 0


def _refuse_others(arguments: argparse.Namespace) -> None:
    for flag in ("qkv_concat", "is_pretrain"):
        said = getattr(arguments, flag).lower()
        if said in ("true", "yes", "y", "t", "1"):
            why = "fused weights are not written: set qkv_concat: False" if flag == "qkv_concat" else "it is for swin"
            raise UsageError(f"--{flag} {getattr(arguments, flag)} is not served: {why}")
        if said not in ("false", "no", "n", "f", "0"):
            raise UsageError(f"--{flag} must be True or False, not {getattr(arguments, flag)!r}")
    if arguments.telechat_type is not None:
        raise UsageError("--telechat_type is not served: telechat is none of the models")


def _target(path: Path, is_reversed: bool) -> Path:
    """The file's name; as MindSpore's save_checkpoint does, .ckpt is put behind one that has no ending."""
    if path.suffix in _SUFFIXES:
        return path
    if path.suffix in (".bin", ".pt", ".pth"):
        wanted = ".safetensors, which transformers reads as well" if is_reversed else ".ckpt"
        raise UsageError(f"--output_path {path}: torch's files are not written; let the name end in {wanted}")
    return path.with_name(f"{path.name}{_SUFFIXES[is_reversed]}")
