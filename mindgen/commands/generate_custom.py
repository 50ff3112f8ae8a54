"""scripts/generate_custom.py: prompts in, the list of their continuations out, with MindFormers' flags."""

import argparse
from itertools import chain
from pathlib import Path
from typing import Any

from mindgen import demo, environment
from mindgen.checkpoint.hf import model_folder
from mindgen.commands import flags
from mindgen.commands.generate import read_prompts
from mindgen.commands.launched import hand_over, handed_over, is_first_replica, own_share, serve_rank_0
from mindgen.commands.option_values import parse_value
from mindgen.config import Settings, load_settings
from mindgen.environment import launched_rank
from mindgen.errors import UsageError
from mindgen.sampling_aliases import sampling_options
from mindgen.sampling_params import SamplingParams

_DEFAULT_NEW_TOKENS = 128
_SAMPLING = ("max_new_tokens", "do_sample", "top_k", "top_p", "temperature", "repetition_penalty", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model_type", default="gpt2", metavar="NAME|DIR", help="gpt2 or demo, or a Hugging Face folder")
    add(
        "--checkpoint_path", type=Path, metavar="PATH",
        help="a Hugging Face folder, or one with rank_N/*.ckpt or rank_N/*.safetensors of the model_type",
    )  # fmt: skip
    add("--use_parallel", default="False", metavar="True|False", help="run on data_parallel x model_parallel devices")
    add("--device_id", type=int, default=0, help="of an NPU; a CPU is device 0")
    add("--data_parallel", type=int, default=1, help="replicas, among which the prompts are divided")
    add("--model_parallel", type=int, default=1, help="devices that share one replica's weights")
    add("--batch_size", type=int, help="the number of prompts (default: as many as there are)")
    add("--seq_length", type=int, help="tokens of prompt and output, at most")
    add("--use_past", default="True", metavar="True|False", help="makes no difference: keys and values are kept")
    add("--input_data", metavar="TEXT|FILE", help="a prompt, or a file with one per line (default: $INPUT_DATA)")
    add("--debug", action="store_true", help="show the traceback of an error")
    options = sampling_options()
    for name in _SAMPLING:
        flags.add_option(parser, name, f"generation.{name}", options[name])


def run(arguments: argparse.Namespace, started: float) -> int:
    """Prints the list of prompts with their continuations.

    Raises:
        MindgenError: the flags do not go together, or a prompt cannot be continued.
    """
    served = serve_rank_0()
    if served is not None:
        return served
    prompts = read_prompts(_input_data(arguments.input_data))
    _check_sizes(arguments, len(prompts))
    parse_value("--use_past", bool, [arguments.use_past])
    limits: dict[str, Any] = {} if arguments.seq_length is None else {"engine.max_model_len": arguments.seq_length}
    limits |= {f"engine.{name}": size for name, size in _parallel_sizes(arguments).items()}
    settings = load_settings(None, flags.overrides(arguments) | limits)
    params = settings.generation.sampling_params(_DEFAULT_NEW_TOKENS)
    model, checkpoint = _find_model(arguments.model_type, arguments.checkpoint_path)
    share = own_share(len(prompts))
    texts = _continue(model, checkpoint, settings, [prompts[index] for index in share], params)
    if is_first_replica():
        print([*texts, *chain.from_iterable(handed_over())])
    else:
        hand_over(texts)
    return 0


def _continue(
    model: Path, checkpoint: Path | None, settings: Settings, prompts: list[str], params: SamplingParams
) -> list[str]:
    from mindgen.llm import LLM  # starts MindSpore, which mistakes in the flags need not wait for

    llm = LLM(model, config=settings.engine, checkpoint=checkpoint)
    try:
        outputs = llm.generate(prompts, params)
    finally:
        llm.close()
    for output in outputs:
        if output.exception is not None:
            raise output.exception
    return [prompt + output.outputs[0].text for prompt, output in zip(prompts, outputs, strict=True)]


def _input_data(given: str | None) -> str:
    data = given or environment.input_data()
    if not data:
        raise UsageError("no prompt: pass --input_data or set INPUT_DATA, a text or a file with a prompt per line")
    return data


def _check_sizes(arguments: argparse.Namespace, num_prompts: int) -> None:
    data, model = arguments.data_parallel, arguments.model_parallel
    if data < 1 or model < 1:
        raise UsageError(f"data_parallel and model_parallel must be at least 1, not {data} and {model}")
    if num_prompts % data:
        raise UsageError(f"{num_prompts} prompts do not divide among data_parallel {data} replicas")
    if arguments.batch_size not in (None, num_prompts):
        raise UsageError(f"batch_size is {arguments.batch_size}, and prompts are {num_prompts}: make them the same")


def _parallel_sizes(arguments: argparse.Namespace) -> dict[str, int]:
    """What the engine is to be told of the devices.

    Raises:
        UsageError: there are to be several without use_parallel, or others than the launcher has started.
    """
    data, model = arguments.data_parallel, arguments.model_parallel
    if not parse_value("--use_parallel", bool, [arguments.use_parallel]):
        if data * model > 1:
            raise UsageError(f"data_parallel {data} and model_parallel {model} need --use_parallel True")
        return {}
    launched = launched_rank()
    if launched is None:
        return {"tensor_parallel_size": model, "data_parallel_size": data}
    if (launched.num_replicas, launched.world_size) != (data, model):
        raise UsageError(
            f"data_parallel {data} and model_parallel {model} need {data * model} ranks, but the launcher has started "
            f"{launched.num_replicas} x {launched.world_size}"
        )
    return {"tensor_parallel_size": model}


def _find_model(model_type: str, checkpoint: Path | None) -> tuple[Path, Path | None]:
    """The folder of the configuration and tokenizer, and the checkpoint if it is another one."""
    if checkpoint is not None and (checkpoint / "config.json").is_file():
        return checkpoint, None
    if checkpoint is not None and not checkpoint.exists():
        raise UsageError(f"--checkpoint_path: no such file or folder: {checkpoint}")
    return demo.find_model(model_type) or model_folder(Path(model_type)), checkpoint
