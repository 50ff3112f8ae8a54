"""`mindgen generate --checkpoint-path x.pt`: the generate.py of a from-scratch GPT, with its flags and its output."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.errors import UsageError
from mindgen.sampling_params import SamplingParams
from mindgen.store.find_model import find_tokenizer
from mindgen.store.torch_folder import torch_folder

if TYPE_CHECKING:
    from mindgen.llm import LLM

_SIZES = ("vocab_size", "max_position_embeddings", "n_layers", "n_heads", "d_model", "d_ff")
_DEVICES = {"cpu": "CPU", "npu": "Ascend", "ascend": "Ascend"}
_DEFAULT_NEW_TOKENS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a training checkpoint of the from-scratch GPT (flags may have - for _)")
    add = group.add_argument
    add("--checkpoint_path", type=Path, metavar="FILE", help="a .pt file")
    add("--tokenizer_name", metavar="DIR", help="the folder of the tokenizer (default: that of the checkpoint)")
    for name in _SIZES:
        add(f"--{name}", type=int, metavar="SIZE", help="as in training, where the file does not say it")
    add("--activation", choices=["gelu", "gelu_new"], help="the exact GELU (default), or that with the tangent")
    add("--dropout", type=float, help="makes no difference: there is none in inference")
    add("--use_tensor_parallel", action="store_true", help="makes no difference: the file must hold the whole model")
    add("--stop_on_eos", action="store_true", help="makes no difference: the end token ends an output")
    add("--device", metavar="cpu|npu", help="where to run (default: an NPU if there is one)")


def run(arguments: argparse.Namespace, prompts: list[str]) -> int:
    """Prints what the training's generate.py prints.

    Raises:
        MindgenError: the file is damaged, or its sizes are told nowhere.
    """
    if len(prompts) != 1:
        raise UsageError(f"--checkpoint_path continues one prompt, not {len(prompts)}")
    told = {name: getattr(arguments, name) for name in (*_SIZES, "activation") if getattr(arguments, name) is not None}
    tokenizer = None if arguments.tokenizer_name is None else find_tokenizer(arguments.tokenizer_name)
    folder = torch_folder(arguments.checkpoint_path, told, tokenizer)
    params = _sampling(arguments)
    limits: dict[str, Any] = {} if arguments.device is None else {"device_target": _device(arguments.device)}
    from mindgen.llm import LLM  # starts MindSpore, which mistakes in the flags need not wait for
    from mindgen.weights.architecture import read_model_config

    num_positions = read_model_config(folder).max_position
    print(f"Using device: {arguments.device or 'auto'}")
    print(f"Loading checkpoint from {arguments.checkpoint_path}...")
    llm = LLM(folder, max_model_len=num_positions + 1, **limits)
    print(f"Prompt: {prompts[0]}")
    ids = _continue(llm, prompts[0], params, num_positions)
    print(f"Generated text: {llm.tokenizer.decode(ids)}")
    llm.close()
    return 0


def _continue(llm: "LLM", prompt: str, params: dict[str, Any], num_positions: int) -> list[int]:
    """The last num_positions tokens of prompt and output.

    Beyond them each token sees the num_positions before it, whose positions count from 0 again: cached keys are of no
    use then.
    """
    end = llm.tokenizer.eos_id
    ids = llm.encode(prompt, add_special_tokens=False) or ([] if end is None else [end])
    if not ids:
        raise UsageError("the prompt is empty, and the tokenizer has no end token to begin with")
    if len(ids) >= num_positions:
        ids = ids[1 - num_positions :]
    left = params.pop("max_tokens")
    while left > 0:
        count = min(left, num_positions + 1 - len(ids))
        stop: dict[str, Any] = {} if end is None else {"stop_token_ids": [end]}
        sampling = SamplingParams(max_tokens=count, include_stop_str_in_output=True, **params, **stop)
        (output,) = llm.generate([{"prompt_token_ids": ids}], sampling)
        if output.exception is not None:
            raise output.exception
        made = output.outputs[0].token_ids
        ids, left = (ids + made)[-num_positions:], left - len(made)
        if not made or made[-1] == end:
            break
    return ids


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of generate.py: top_k 0 and top_p 0 are all, and it is greedy unless do_sample is said."""
    given = {name: getattr(arguments, f"generation.{name}") for name in ("temperature", "top_k", "top_p", "do_sample")}
    number = {name: 0.0 if text is None else _number(name, text) for name, text in given.items() if name != "do_sample"}
    temperature = 1.0 if given["temperature"] is None else number["temperature"]
    samples = given["do_sample"] in ("True", "true") and temperature > 0
    tokens = getattr(arguments, "generation.max_new_tokens")
    return {
        "temperature": temperature if samples else 0.0,
        "top_k": int(number["top_k"]) if samples else 0,
        "top_p": number["top_p"] if samples and 0 < number["top_p"] < 1 else 1.0,
        "max_tokens": _DEFAULT_NEW_TOKENS if tokens is None else int(_number("max_new_tokens", tokens)),
    }


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--{name} must be a number, not {text!r}") from error


def _device(name: str) -> str:
    if name not in _DEVICES:
        raise UsageError(f"--device {name}: mindgen runs on {', '.join(_DEVICES)}")
    return _DEVICES[name]
