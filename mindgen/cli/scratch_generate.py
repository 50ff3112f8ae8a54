"""`mindgen generate --checkpoint-path x.pt`: the generate.py of a from-scratch GPT, with its flags and its output."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.adapters.registry import BASE_NAME
from mindgen.cli import flags
from mindgen.errors import UsageError
from mindgen.sampling_params import SamplingParams
from mindgen.store.embedded import find_embedded
from mindgen.store.find_model import find_tokenizer
from mindgen.store.torch_folder import torch_folder
from mindgen.text.tokenizer import load_tokenizer
from mindgen.weights.architecture import read_model_config

if TYPE_CHECKING:
    from mindgen.llm import LLM

_SIZES = ("vocab_size", "max_position_embeddings", "n_layers", "n_heads", "d_model", "d_ff")
_OF_CHECKPOINT = (
    "tokenizer_name", *_SIZES, "activation", "dropout", "use_tensor_parallel", "stop_on_eos", "device",
)  # fmt: skip
_DEVICES = {"cpu": "CPU", "npu": "Ascend", "ascend": "Ascend"}
_DEFAULT_NEW_TOKENS = 100
_ADAPTER_PATH = "model.pet_config.adapter_path"
_SAMPLING = tuple(
    f"generation.{name}" for name in ("temperature", "top_k", "top_p", "do_sample", "seed", "max_new_tokens")
)
_SERVED = {"predict_data", "run_mode", "adapter_id", "on_missing_adapter", _ADAPTER_PATH, *_SAMPLING}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "a training checkpoint of the from-scratch GPT (flags may have - for _); no --config is read for it; top_p "
        "keeps the token that crosses p, which generate.py drops"
    )
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


def refuse_alone(arguments: argparse.Namespace) -> None:
    """Raises UsageError for a flag that says something of a --checkpoint_path where there is none."""
    given = [name for name in _OF_CHECKPOINT if getattr(arguments, name) not in (None, False)]
    if given:
        raise UsageError(
            f"{', '.join(f'--{name}' for name in given)}: only with --checkpoint_path, and there is none (other models "
            "say their sizes themselves; --device_target is where they run)"
        )


def run(arguments: argparse.Namespace) -> int:
    """Prints what the training's generate.py prints.

    Raises:
        UsageError: a flag was given that has no meaning for it, or has a wrong value.
        MindgenError: the file is damaged, or its sizes are told nowhere; or the adapter is none of its own.
    """
    given = _served(arguments)
    prompts, adapter_ids = given.get("predict_data", []), given.get("adapter_id", [BASE_NAME])
    if len(prompts) != 1 or len(adapter_ids) != 1:
        raise UsageError(
            f"--checkpoint_path continues one prompt with one adapter, not {len(prompts)} with {len(adapter_ids)}"
        )
    told = {name: getattr(arguments, name) for name in (*_SIZES, "activation") if getattr(arguments, name) is not None}
    tokenizer = None if arguments.tokenizer_name is None else find_tokenizer(arguments.tokenizer_name)
    folder = torch_folder(arguments.checkpoint_path, told, tokenizer)
    config = read_model_config(folder)
    if tokenizer is not None and tokenizer == find_embedded(arguments.tokenizer_name):
        _check_embedded(arguments.tokenizer_name, load_tokenizer(tokenizer).vocab_size, config.vocab_size)
    params = _sampling(given)
    limits: dict[str, Any] = {} if arguments.device is None else {"device_target": _device(arguments.device)}
    from mindgen.llm import LLM  # starts MindSpore, which mistakes in the flags need not wait for

    num_positions = config.max_position
    print(f"Using device: {arguments.device or 'auto'}")
    print(f"Loading checkpoint from {arguments.checkpoint_path}...")
    missing = given.get("on_missing_adapter", "error")
    llm = LLM(folder, given.get(_ADAPTER_PATH), on_missing_adapter=missing, max_model_len=num_positions + 1, **limits)
    print(f"Prompt: {prompts[0]}")
    ids = _continue(llm, prompts[0], None if adapter_ids == [BASE_NAME] else adapter_ids[0], params, num_positions)
    print(f"Generated text: {llm.tokenizer.decode(ids)}")
    llm.close()
    return 0


def _check_embedded(name: str, num_tokens: int, vocab_size: int) -> None:
    """Raises UsageError where the name of an embedded model is meant for the well-known tokenizer of that name."""
    if num_tokens != vocab_size:
        raise UsageError(
            f"--tokenizer_name {name} is mindgen's embedded demonstration of {num_tokens} tokens, and the model has "
            f"{vocab_size}: give the folder of the tokenizer that it was trained with"
        )


def _served(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given, by the configuration's keys; raises UsageError for what generate.py's job has no use for."""
    given = {key: value for key, value in flags.overrides(arguments).items() if value is not None}
    others = {"output": arguments.output != "text", "profile": arguments.profile is not None, "chat": arguments.chat}
    refused = [*(given.keys() - _SERVED), *(name for name, is_given in others.items() if is_given)]
    if refused:
        names = sorted("model" if key == "model.path" else key.rpartition(".")[2] for key in refused)
        raise UsageError(
            f"--checkpoint_path does not go with {', '.join(f'--{name}' for name in names)}: for these pass the file "
            "as --model"
        )
    return given


def _continue(llm: "LLM", prompt: str, adapter_id: str | None, params: dict[str, Any], num_positions: int) -> list[int]:
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
    left, seed = params.pop("max_tokens"), params.pop("seed")
    while left > 0:
        count = min(left, num_positions + 1 - len(ids))
        stop: dict[str, Any] = {} if end is None else {"stop_token_ids": [end]}
        if seed is not None:
            params["seed"] = seed + left  # each window draws anew
        sampling = SamplingParams(max_tokens=count, include_stop_str_in_output=True, **params, **stop)
        (output,) = llm.generate([{"prompt_token_ids": ids}], sampling, [adapter_id])
        made = output.outputs[0].token_ids
        ids, left = (ids + made)[-num_positions:], left - len(made)
        if not made or made[-1] == end:
            break
    return ids


def _sampling(given: dict[str, Any]) -> dict[str, Any]:
    """The options of generate.py: top_k 0 and top_p 0 are all, and it is greedy unless do_sample is said.

    Raises:
        UsageError: a number is none.
    """
    temperature, top_k, top_p, do_sample, seed, tokens = (given.get(key) for key in _SAMPLING)
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if value is not None and math.isnan(value):
            raise UsageError(f"--{name} cannot be nan: expected a number")
    temperature = 1.0 if temperature is None else temperature
    samples = bool(do_sample) and temperature > 0
    return {
        "temperature": temperature if samples else 0.0,
        "top_k": max(top_k or 0, 0) if samples else 0,
        "top_p": top_p if samples and top_p is not None and 0 < top_p < 1 else 1.0,
        "seed": seed,
        "max_tokens": _DEFAULT_NEW_TOKENS if tokens is None else tokens,
    }


def _device(name: str) -> str:
    if name not in _DEVICES:
        raise UsageError(f"--device {name}: mindgen runs on {', '.join(_DEVICES)}")
    return _DEVICES[name]
