"""`mindgen generate`, which run_generate.py is: prompts in, text or JSON lines out, streamed as it comes."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.adapters.registry import BASE_NAME
from mindgen.cli import flags, scratch_generate
from mindgen.cli.launched import closing, take_part
from mindgen.cli.prediction_output import open_output, parse_target
from mindgen.cli.profile_report import report_profile
from mindgen.cli.run_report import RunReport
from mindgen.errors import RequestError, UsageError
from mindgen.loop.request_reader import Prompt, read_request
from mindgen.outputs import TextChunk
from mindgen.sampling_params import SamplingParams
from mindgen.settings import GenerationSettings, load_settings
from mindgen.system.text_file import read_text_file

if TYPE_CHECKING:
    from mindgen.llm import LLM

_DEFAULT_NEW_TOKENS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--predict_data", "--prompt", "--input_data", nargs="+", action="append", metavar="PROMPT",
        help="prompts: one or several texts, or a file with a prompt per line",
    )  # fmt: skip
    add(
        "--adapter_id",
        nargs="+",
        help=f"the adapter that answers: one for all prompts, one each, or several for one; '{BASE_NAME}' is none",
    )
    add("--output", default="text", help="text or jsonl on standard output, or a file ending in .txt or .jsonl")
    add(
        "--profile",
        nargs="?",
        const=Path("output/profile.json"),
        type=Path,
        metavar="JSON",
        help="print a table of the kernels, and write a Chrome trace (default: output/profile.json)",
    )
    add("--chat", action="store_true", help="prompts are messages, for which the model has a chat template")
    add("--run_mode", choices=["predict"])
    flags.add_model_arguments(parser)
    flags.add_engine_arguments(parser)
    flags.add_sampling_arguments(parser)
    scratch_generate.add_arguments(parser)


def run(arguments: argparse.Namespace, started: float) -> int:
    """Generates and prints; `started` is when the process began, in time.perf_counter() seconds.

    Returns:
        The exit code: 0, or that of the first prompt that failed.

    Raises:
        MindgenError: of whatever part refused all prompts alike.
    """
    arguments.predict_data = _one_choice(arguments.predict_data)
    if arguments.checkpoint_path is not None:
        return scratch_generate.run(arguments)
    scratch_generate.refuse_alone(arguments)
    part, settings = take_part(load_settings(arguments.config, flags.overrides(arguments)))
    if settings.engine.node_rank > 0:
        return flags.serve_if_worker(settings) or 0
    prompts, adapter_ids = _pair(read_prompts(settings.predict_data), settings.adapter_id)
    generation = flags.generation_settings(settings)
    generation.sampling_params(_DEFAULT_NEW_TOKENS)  # mistakes need not wait for the model
    flags.check_adapters(settings, adapter_ids)
    target, trace = parse_target(arguments.output), arguments.profile
    if not part.writes_files:
        target, trace = replace(target, path=None), None
    busy = part.busy(settings, len(prompts))
    if busy is None:
        return 0
    exit_code = flags.serve_if_worker(busy)
    if exit_code is not None:
        return exit_code
    report = RunReport(started, arguments.debug)
    import mindgen.llm  # noqa: F401  (starts MindSpore)

    report.imported = time.perf_counter()
    llm = flags.load_llm(busy)
    with closing(llm):
        report.begin(llm.memory_plan)
        inputs = [_message(llm, prompt) if arguments.chat else prompt for prompt in prompts]
        params = [_sampling_params(llm, generation, each) for each in inputs]
        share = part.share(len(prompts))
        num_outputs = [each.n if isinstance(each, SamplingParams) else 0 for each in params]
        shown = [f"{prompt}\n" for prompt in prompts] if arguments.chat and not target.is_jsonl else prompts
        with open_output(target, shown, num_outputs, share.start) as output, _profiled(llm, trace):
            for chunk in _stream(llm, inputs, params, adapter_ids, share):
                report.add(chunk)
                output.write(chunk)
        report.print()
    llm.close(report.exit_code)
    return report.exit_code


def _one_choice(given: list[list[str]] | None) -> list[str] | None:
    """What --predict_data and its other names say; they may say the same."""
    if given and any(each != given[0] for each in given):
        texts = " and ".join(repr(" ".join(each)) for each in given)
        raise UsageError(f"--predict_data, --prompt and --input_data are the same, and say {texts}: keep one of them")
    return given[0] if given else None


def _sampling_params(
    llm: "LLM", generation: GenerationSettings, prompt: str | dict[str, Any]
) -> SamplingParams | RequestError:
    """The parameters for a prompt, or why there are none for this one."""
    try:
        token_ids = llm.encode(prompt) if isinstance(prompt, str) else prompt["prompt_token_ids"]
        return generation.sampling_params(_DEFAULT_NEW_TOKENS, len(token_ids))
    except RequestError as error:
        return error


def _stream(
    llm: "LLM",
    prompts: Sequence[Prompt],
    params: Sequence[SamplingParams | RequestError],
    adapter_ids: Sequence[str | None],
    share: range,
) -> Iterator[TextChunk]:
    """What comes of this share of the prompts."""
    requests = [read_request(prompts[index], params[index], adapter_ids[index]) for index in share]
    for chunk in llm.stream_requests(requests, is_streamed=True):
        yield replace(chunk, index=share.start + chunk.index)


@contextmanager
def _profiled(llm: "LLM", trace: Path | None) -> Iterator[None]:
    if trace is None:
        yield
        return
    with llm.profile() as profile:
        yield
    report_profile(profile, trace)


def read_prompts(predict_data: str | list[str] | None) -> list[str]:
    """Texts as they are; of a file its lines.

    Raises:
        MindgenError: there is no prompt, or the file cannot be read.
    """
    given = [predict_data] if isinstance(predict_data, str) else predict_data or []
    if not given:
        raise UsageError("no prompt: pass --prompt with a text, several texts, or a file with a prompt per line")
    path = Path(given[0])
    looks_like_file = path.suffix in (".txt", ".prompts") and not any(character.isspace() for character in given[0])
    if len(given) > 1 or not (looks_like_file or _is_file(path)):
        return given
    prompts = [line for line in read_text_file(path, UsageError, "the prompts in").splitlines() if line.strip()]
    if not prompts:
        raise RequestError(f"{path} holds no prompt: expected one per line")
    return prompts


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a file name
        return False


def _pair(prompts: list[str], adapter_id: str | list[str] | None) -> tuple[list[str], list[str | None]]:
    """The prompts, and the adapter for each: one answers all, and one prompt is answered by all."""
    ids = [adapter_id] if isinstance(adapter_id, str) else adapter_id or [BASE_NAME]
    ids = ids * len(prompts) if len(ids) == 1 else ids
    prompts = prompts * len(ids) if len(prompts) == 1 else prompts
    if len(ids) != len(prompts):
        raise UsageError(f"--adapter_id has {len(ids)} names for {len(prompts)} prompts; give one, or one for each")
    return prompts, [None if name == BASE_NAME else name for name in ids]


def _message(llm: "LLM", prompt: str) -> dict[str, Any]:
    """The prompt that the model's chat template makes of a user's message; raises RequestError if it has none."""
    return llm.chat_prompt([{"role": "user", "content": prompt}])
