"""`mindgen generate`, which run_generate.py is: prompts in, text or JSON lines out, streamed as it comes."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.adapters.registry import BASE_NAME
from mindgen.commands.prediction_output import RunReport, open_output, parse_target
from mindgen.commands.profile_report import report_profile
from mindgen.config import GenerationSettings, Settings, load_settings
from mindgen.errors import ConfigError, RequestError, UsageError
from mindgen.sampling_aliases import translate_options
from mindgen.sampling_params import SamplingParams

if TYPE_CHECKING:
    from mindgen.llm import LLM

_DEFAULT_NEW_TOKENS = 64
_GENERATION_FLAGS = {
    "max_length": int, "max_new_tokens": int, "temperature": float, "top_k": int, "top_p": float,
    "repetition_penalty": float, "seed": int,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; those whose dest is a key of the configuration override it, and have no default of their own."""
    add = parser.add_argument
    add("--config", type=Path, help="YAML configuration")
    add("--debug", action="store_true", help="show the traceback of an error")
    add(
        "--profile",
        nargs="?",
        const=Path("output/profile.json"),
        type=Path,
        metavar="JSON",
        help="print a table of the kernels, and write a Chrome trace (default: output/profile.json)",
    )
    add("--output", default="text", help="text or jsonl on standard output, or a file ending in .txt or .jsonl")
    add("--predict_data", nargs="+", help="prompts: one or several texts, or a file with a prompt per line")
    add(
        "--adapter_id",
        nargs="+",
        help=f"the adapter that answers: one for all prompts or one each; '{BASE_NAME}' is none",
    )
    add("--on_missing_adapter", choices=["error", "base"], help="what an unknown adapter_id gets (default: error)")
    add("--model", dest="model.path", metavar="DIR", help="a Hugging Face folder, or demo")
    add("--dtype", dest="model.dtype", choices=["auto", "bfloat16", "float16", "float32"])
    add(
        "--adapter_path", dest="model.pet_config.adapter_path", metavar="PATH", help="a lora_adapter.json or its folder"
    )
    add("--executor", dest="engine.executor", choices=["mindgen", "mindgen_unfused", "mindspore"], help="on the CPU")
    add("--num_threads", dest="engine.num_threads", type=int, metavar="INT", help="of the CPU kernels")
    add("--run_mode", choices=["predict"])
    add("--use_parallel", type=_boolean, metavar="True|False")
    for name, kind in _GENERATION_FLAGS.items():
        add(f"--{name}", dest=f"generation.{name}", type=kind, metavar=kind.__name__.upper())
    add("--do_sample", dest="generation.do_sample", type=_boolean, nargs="?", const=True, metavar="True|False")


def run(arguments: argparse.Namespace, started: float) -> None:
    """Generates and prints; `started` is when the process began, in time.perf_counter() seconds.

    Raises:
        MindgenError: of whatever part refused.
    """
    settings = load_settings(arguments.config, _overrides(arguments))
    if settings.use_parallel:
        raise ConfigError("use_parallel: this version runs on one process only; leave it False")
    prompts = _read_prompts(settings.predict_data)
    adapter_ids = _adapter_ids(settings.adapter_id, len(prompts))
    _sampling_params(settings.generation)  # mistakes need not wait for the model
    target = parse_target(arguments.output)
    report = RunReport(started)
    llm = _load(settings, report)
    params = [_sampling_params(settings.generation, len(llm.encode(prompt))) for prompt in prompts]
    with open_output(target) as output, _profiled(llm, arguments.profile):
        for chunk in llm.stream(prompts, params, adapter_ids):
            output.write(prompts, chunk)
            report.add(chunk)
    report.print()


@contextmanager
def _profiled(llm: "LLM", trace: Path | None) -> Iterator[None]:
    if trace is None:
        yield
        return
    with llm.profile() as profile:
        yield
    report_profile(profile, trace)


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    own = ("command", "config", "debug", "output", "profile")
    return {key: value for key, value in vars(arguments).items() if key not in own and value is not None}


def _load(settings: Settings, report: RunReport) -> "LLM":
    from mindgen.llm import LLM  # starts MindSpore, which mistakes in the flags need not wait for

    report.imported = time.perf_counter()
    llm = LLM(
        model=settings.model.path,
        adapters=settings.model.pet_config.adapter_path,
        dtype=settings.model.dtype,
        config=settings.engine,
        on_missing_adapter=settings.on_missing_adapter,
    )
    report.loaded = time.perf_counter()
    return llm


def _read_prompts(predict_data: str | list[str] | None) -> list[str]:
    given = [predict_data] if isinstance(predict_data, str) else predict_data or []
    if not given:
        raise UsageError("no prompt: pass --predict_data with a text, several texts, or a file with a prompt per line")
    path = Path(given[0])
    looks_like_file = path.suffix in (".txt", ".prompts") and not any(character.isspace() for character in given[0])
    if len(given) > 1 or not (looks_like_file or _is_file(path)):
        return given
    try:
        prompts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"cannot read the prompts in {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the prompts in {path} are not UTF-8 text: {error}") from error
    if not prompts:
        raise RequestError(f"{path} holds no prompt: expected one per line")
    return prompts


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a file name
        return False


def _adapter_ids(adapter_id: str | list[str] | None, num_prompts: int) -> list[str | None]:
    ids = [adapter_id] if isinstance(adapter_id, str) else adapter_id or [BASE_NAME]
    ids = ids * num_prompts if len(ids) == 1 else ids
    if len(ids) != num_prompts:
        raise UsageError(f"--adapter_id has {len(ids)} names for {num_prompts} prompts; give one, or one for each")
    return [None if name == BASE_NAME else name for name in ids]


def _sampling_params(generation: GenerationSettings, prompt_len: int = 0) -> SamplingParams:
    options = generation.model_dump(exclude_none=True)
    if not {"max_length", "max_new_tokens"} & options.keys():
        options["max_new_tokens"] = _DEFAULT_NEW_TOKENS
    return translate_options(options, prompt_len)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}")
