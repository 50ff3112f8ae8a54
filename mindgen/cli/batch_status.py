"""`mindgen batch status`: how far a job is. Needs no MindSpore."""

import argparse
from pathlib import Path

from mindgen.batch.job_folder import JobFolder, Manifest
from mindgen.batch.summary import SUMMARY_FILE, read_summary
from mindgen.batch.worker import count_kept
from mindgen.cli.tables import make_console, make_table, printable
from mindgen.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("output", type=Path, metavar="OUTPUT", help="the file that the job writes")
    add("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Prints it.

    Raises:
        MindgenError: there is no such job, or its folder is damaged.
    """
    if not arguments.output.name:
        raise UsageError(f"name the file that the job writes, not {arguments.output}")
    folder = JobFolder(arguments.output)
    manifest = folder.manifest()
    if manifest is None:
        raise UsageError(f"there is no job of the output {arguments.output}: {folder.path} is not there")
    totals = read_summary(folder.path / SUMMARY_FILE).in_all if manifest.is_finished else count_kept(folder.parts)
    table = make_table("", "")
    table.add_row("job", printable(str(folder.path)))
    table.add_row("state", _state(folder, manifest))
    table.add_row("rows", f"{totals.rows:,} of {manifest.num_rows:,} ({totals.rows / manifest.num_rows:.1%})")
    table.add_row("samples", f"{totals.samples:,}")
    table.add_row("tokens of prompts, of outputs", f"{totals.prompt_tokens:,}, {totals.output_tokens:,}")
    table.add_row("rows failed", f"{totals.rows_failed:,}")
    for kind, count in sorted(totals.errors.items()):
        table.add_row(f"  samples failed: {printable(kind)}", f"{count:,}")
    make_console().print(table)
    return 0


def _state(folder: JobFolder, manifest: Manifest) -> str:
    holder = folder.holder()
    if holder is not None:
        return f"running, as process {holder.process} of {printable(holder.host)}"
    return "finished" if manifest.is_finished else "stopped: the same command goes on with it"
