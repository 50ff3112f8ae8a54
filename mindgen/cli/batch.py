"""`mindgen batch`, which `python -m mindgen.batch` is: rows of prompts in, the same rows with their answers out."""

import argparse
import sys
from dataclasses import fields

from mindgen.batch.config import BatchConfig
from mindgen.batch.settings import NOT_OF_A_JOB, BatchSettings, read_batch_settings
from mindgen.batch.summary import BatchSummary
from mindgen.cli import flags
from mindgen.cli.batch_progress import watch
from mindgen.cli.launched import take_part
from mindgen.cli.tables import printable
from mindgen.errors import ConfigError, UsageError
from mindgen.loop.model_files import ModelFiles
from mindgen.sampling_params import SamplingParams
from mindgen.settings import read_generation_file
from mindgen.store.find_model import find_model
from mindgen.system.environment import Terminated, launched_rank, raised_termination
from mindgen.system.suggestion import did_you_mean

ROWS_FAILED = 3  # the exit code of a job that is done, but for some rows
TOOLS = ("status", "split", "merge", "compare")  # what `mindgen batch` has beside jobs
USAGE = """mindgen batch [KEY=VALUE ...] [--input FILE --output FILE] [flags]
       mindgen batch status OUTPUT
       mindgen batch split INPUT --chunks N [--output PATTERN]
       mindgen batch merge OUTPUT ... --output FILE
       mindgen batch compare A B"""
_ALWAYS_SHOWN = ("temperature", "top_k", "top_p", "max_tokens")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words come first, for flags may take several values."""
    parser.usage = USAGE
    add = parser.add_argument
    add(
        "words", nargs="*", metavar="KEY=VALUE",
        help="a setting with veRL's key or one of ours, as Hydra has them: data.path=x.parquet, +key=value, ~key",
    )  # fmt: skip
    add("--input", nargs="+", metavar="PATH", help="Parquet, JSON lines, CSV or text; a folder, a pattern, or several")
    add("--output", metavar="FILE", help="ends in .parquet, .jsonl, .csv or .txt")
    add("--prompt_key", dest="columns.prompt", metavar="COLUMN", help="the prompts (default: prompt)")
    add("--adapter_key", dest="columns.adapter_id", metavar="COLUMN", help="the adapters (default: adapter_id)")
    add("--adapter_id", metavar="NAME", help="the adapter of all rows, where there is no such column")
    add("--n_samples", type=int, metavar="N", help="answers to each prompt (default: 1; in veRL's form 5)")
    add("--seed", type=int, metavar="N", help="of the job, from which each sample has its own (default: 0)")
    add("--chat", dest="prompts.chat", action="store_true", default=None, help="texts are messages, as of a user")
    add("--prompt_length", type=int, dest="prompts.max_length", metavar="N", help="tokens of a prompt, at most")
    add(
        "--truncation", dest="prompts.truncation", choices=["error", "left", "right"],
        help="what becomes of a longer prompt (default: error, of its row)",
    )  # fmt: skip
    add("--form", dest="outputs.form", choices=["generated_text", "responses"], help="a row for each sample, or lists")
    add("--prefix", dest="outputs.prefix", metavar="TEXT", help="of the names of the columns that are added")
    for name in ("token_ids", "logprobs"):
        add(f"--{name}", dest=f"outputs.{name}", action="store_true", default=None, help="write those of each token")
    add("--overwrite", dest="outputs.overwrite", action="store_true", default=None, help="begin the job again")
    add("--resume", action="store_true", help="go on where an earlier run was ended; makes no difference, for all do")
    add("--batch_size", type=int, metavar="N", help="rows in work at once (default: twice what the engine computes)")
    add("--part_rows", type=int, metavar="N", help="rows of a file in the job's folder (default: 1000)")
    add("--fail_fast", action="store_true", default=None, help="end with the first row that fails")
    add("--retry_failed", action="store_true", default=None, help="generate the rows again that have failed")
    add("--runner", choices=["local", "ray"], help="ray: replicas on all machines of a Ray cluster")
    flags.add_model_arguments(parser)
    flags.add_engine_arguments(parser)
    flags.add_sampling_arguments(parser, without=NOT_OF_A_JOB)


def run(arguments: argparse.Namespace, started: float) -> int:
    """Runs the job.

    Returns:
        The exit code: 0, 3 where rows have failed, 130 or 143 where a signal has ended it.

    Raises:
        MindgenError: the job cannot be begun, or not go on.
    """
    try:
        with raised_termination():
            return _run_job(arguments)
    except KeyboardInterrupt as signal:
        print("mindgen: stopped; the same command goes on with the job", file=sys.stderr)
        return 143 if isinstance(signal, Terminated) else 130


def _run_job(arguments: argparse.Namespace) -> int:
    config = _read_config(arguments)
    print(f"mindgen: {shown_sampling(config)}", file=sys.stderr)
    from mindgen.batch.run import run_batch  # starts MindSpore, which mistakes in the settings need not wait for

    with watch(sys.stderr) as watcher:
        summary = run_batch(config, watcher)
    return _exit_code(summary)


def _read_config(arguments: argparse.Namespace) -> BatchConfig:
    if arguments.words and arguments.words[0].isalpha():
        raise UsageError(
            f"{arguments.words[0]!r} is neither a setting like key=value nor one of {', '.join(TOOLS)}"
            f"{did_you_mean(arguments.words[0], TOOLS)}"
        )
    request = read_batch_settings(arguments.config, arguments.words, flags.overrides(arguments, BatchSettings))
    for note in request.notes:
        print(f"mindgen: {note}", file=sys.stderr)
    settings, launched = request.settings, launched_rank()
    if launched is not None:
        if len(launched.local_replicas()) < launched.num_replicas:
            raise ConfigError(
                "a job is not shared by the replicas of a launcher on several machines: give engine.nnodes and "
                "engine.master_addr, or let Ray start them (runner=ray)"
            )
        settings = settings.model_copy(update={"use_parallel": True})
    _, settings = take_part(settings)
    defaults = read_generation_file(find_model(settings.model.path)).model_copy(update=dict.fromkeys(NOT_OF_A_JOB))
    settings = settings.model_copy(update={"generation": settings.generation.over(defaults)})
    settings.job(ModelFiles(settings.model.path, None, None), settings.engine)  # before a checkpoint is transformed
    return settings.job(*flags.model_files(settings))


def shown_sampling(config: BatchConfig) -> str:
    """How answers are chosen, in a line: what people must know of it, and what is not as usual."""
    usual, sampling = SamplingParams(), config.sampling
    names = [
        field.name for field in fields(SamplingParams)
        if field.name in _ALWAYS_SHOWN or getattr(sampling, field.name) != getattr(usual, field.name)
    ]  # fmt: skip
    values = [f"{name} {getattr(sampling, name)}" for name in names]
    kind = "greedy, " if sampling.is_greedy else ""
    return f"sampling: {kind}{', '.join(values)}, n_samples {config.n_samples}, seed {config.seed}"


def _exit_code(summary: BatchSummary) -> int:
    totals = summary.in_all
    if not totals.rows_failed:
        return 0
    kinds = ", ".join(f"{printable(kind)} {count}" for kind, count in sorted(totals.errors.items()))
    print(f"mindgen: {totals.rows_failed} row(s) failed, samples by kind: {kinds}", file=sys.stderr)
    print("mindgen: --retry_failed generates these rows again, and those alone", file=sys.stderr)
    return ROWS_FAILED
