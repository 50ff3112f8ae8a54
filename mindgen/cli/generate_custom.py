"""scripts/generate_custom.py: prompts in, the list of their continuations out, with MindFormers' flags."""

import argparse
from pathlib import Path
from typing import Any

from mindgen.cli import flags
from mindgen.cli.generate import read_prompts
from mindgen.cli.launched import Part, closing, with_engine
from mindgen.cli.option_values import parse_value
from mindgen.compat.option_aliases import sampling_options
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import UsageError
from mindgen.loop.model_files import ModelFiles
from mindgen.loop.roles import serve_if_worker
from mindgen.sampling_params import SamplingParams
from mindgen.settings import load_settings
from mindgen.store.find_model import find_model
from mindgen.system import environment
from mindgen.system.documented_fields import documented_fields
from mindgen.system.environment import launched_rank

_DEFAULT_NEW_TOKENS = 128
_SAMPLING = ("max_new_tokens", "do_sample", "top_k", "top_p", "temperature", "repetition_penalty", "seed")
_NODES = ("nnodes", "node_rank", "master_addr", "master_port", "node_timeout")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model_type", default="gpt2", metavar="NAME|DIR", help="gpt2 or demo, or a Hugging Face folder")
    add(
        "--checkpoint_path", type=Path, metavar="PATH",
        help="a Hugging Face folder, or one with rank_N/*.ckpt or rank_N/*.safetensors of the model_type",
    )  # fmt: skip
    add("--use_parallel", default="False", metavar="True|False", help="run on data_parallel x model_parallel devices")
    add("--device_id", type=int, default=0, help="of an NPU; a CPU is device 0")
    add("--data_parallel", type=int, help="replicas that share the prompts (default: the launcher's, or 1)")
    add("--model_parallel", type=int, help="devices that share one replica's weights (default: the launcher's, or 1)")
    add("--batch_size", type=int, help="the number of prompts (default: as many as there are)")
    add("--seq_length", type=int, help="tokens of prompt and output, at most")
    add("--use_past", default="True", metavar="True|False", help="makes no difference: keys and values are kept")
    add("--input_data", metavar="TEXT|FILE", help="a prompt, or a file with one per line (default: $INPUT_DATA)")
    add("--debug", action="store_true", help="show the traceback of an error")
    limits = documented_fields(EngineConfig)
    for name in _NODES:
        flags.add_option(parser, name, f"engine.{name}", limits[name])
    options = sampling_options()
    for name in _SAMPLING:
        flags.add_option(parser, name, f"generation.{name}", options[name])


def run(arguments: argparse.Namespace, started: float) -> int:
    """Prints the list of prompts with their continuations.

    Raises:
        MindgenError: the flags do not go together, or a prompt cannot be continued.
    """
    parse_value("--use_past", bool, [arguments.use_past])
    limits: dict[str, Any] = {} if arguments.seq_length is None else {"engine.max_model_len": arguments.seq_length}
    use_parallel = parse_value("--use_parallel", bool, [arguments.use_parallel])
    limits |= _parallel_sizes(arguments.data_parallel, arguments.model_parallel, use_parallel)
    settings = load_settings(None, flags.overrides(arguments) | limits)
    part = Part.of(settings.engine, use_parallel)
    config = part.limits(settings.engine)
    params = settings.generation.sampling_params(_DEFAULT_NEW_TOKENS)
    model, checkpoint = _find_model(arguments.model_type, arguments.checkpoint_path)
    files = ModelFiles.of(model, None, checkpoint)
    if config.node_rank > 0:
        return serve_if_worker(files, config) or 0
    prompts = read_prompts(_input_data(arguments.input_data))
    if arguments.batch_size not in (None, len(prompts)):
        raise UsageError(f"batch_size is {arguments.batch_size}, and prompts are {len(prompts)}: make them the same")
    busy = part.busy(with_engine(settings, config), len(prompts))
    if busy is None:
        return 0
    exit_code = serve_if_worker(files, busy.engine)
    if exit_code is not None:
        return exit_code
    print(_continue(model, checkpoint, busy.engine, [prompts[index] for index in part.share(len(prompts))], params))
    return 0


def _continue(
    model: Path, checkpoint: Path | None, config: EngineConfig, prompts: list[str], params: SamplingParams
) -> list[str]:
    from mindgen.llm import LLM  # starts MindSpore, which mistakes in the flags need not wait for

    llm = LLM(model, config=config, checkpoint=checkpoint)
    with closing(llm):
        outputs = llm.generate(prompts, params)
        for output in outputs:
            if output.exception is not None:
                raise output.exception
    llm.close()
    return [prompt + output.outputs[0].text for prompt, output in zip(prompts, outputs, strict=True)]


def _input_data(given: str | None) -> str:
    data = given or environment.input_data()
    if not data:
        raise UsageError("no prompt: pass --input_data or set INPUT_DATA, a text or a file with a prompt per line")
    return data


def _parallel_sizes(data: int | None, model: int | None, use_parallel: bool) -> dict[str, int]:
    """The engine's sizes that the flags say.

    Raises:
        UsageError: there are to be several devices without use_parallel, or others than the launcher has started.
    """
    replicas, devices = 1 if data is None else data, 1 if model is None else model
    if replicas < 1 or devices < 1:
        raise UsageError(f"data_parallel and model_parallel must be at least 1, not {replicas} and {devices}")
    if not use_parallel and replicas * devices > 1:
        raise UsageError(f"data_parallel {replicas} and model_parallel {devices} need --use_parallel True")
    launched = launched_rank()
    if use_parallel and launched is not None:
        started = (launched.num_replicas, launched.world_size)
        wanted = (data or started[0], model or started[1])
        if wanted != started:
            raise UsageError(
                f"data_parallel {wanted[0]} and model_parallel {wanted[1]} need {wanted[0] * wanted[1]} ranks, but the "
                f"launcher has started {started[0]} x {started[1]}"
            )
    return {"engine.data_parallel_size": replicas, "engine.tensor_parallel_size": devices}


def _find_model(model_type: str, checkpoint: Path | None) -> tuple[Path, Path | None]:
    """The folder of the configuration and tokenizer, and the checkpoint if it is another one."""
    if checkpoint is not None and (checkpoint / "config.json").is_file():
        return checkpoint, None
    if checkpoint is not None and not checkpoint.exists():
        raise UsageError(f"--checkpoint_path: no such file or folder: {checkpoint}")
    return find_model(model_type), checkpoint
