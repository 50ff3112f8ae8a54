"""What a job writes of itself when it ends: summary.json, from which the report is made."""

from importlib.metadata import version
from pathlib import Path

import msgspec

from mindgen.batch.histogram import Timeline
from mindgen.batch.totals import Totals
from mindgen.errors import CheckpointError
from mindgen.system.atomic import whole_file

SUMMARY_FILE = "summary.json"  # in the folder of the job


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's results depend on, for people to read.

    Attributes:
        model: its name, as it was asked for.
        settings: those that count, by name.
        output: the file.
    """

    model: str
    model_digest: str
    output: str
    settings: dict[str, str] = {}
    mindgen_version: str = msgspec.field(default_factory=lambda: version("mindgen"))


class BatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a job, and the job so far.

    Attributes:
        rows, samples: of the whole job; None where nobody has counted.
        finished: every row has ended, and the output is there.
        run: what this run has done.
        in_all: with what stays of earlier runs; the same if there were none.
        throughput: of this run.
    """

    job: JobFacts
    rows: int | None
    samples: int | None
    finished: bool
    run: Totals
    in_all: Totals
    throughput: Timeline


def write_summary(path: Path, summary: BatchSummary) -> None:
    """
    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    with whole_file(path) as unfinished:
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")


def read_summary(path: Path) -> BatchSummary:
    """
    Raises:
        CheckpointError: it is not there, or no summary.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=BatchSummary)
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{path} is no summary of a batch job: {error}") from error
