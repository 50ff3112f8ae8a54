"""The files of a batch job that is too large to be run here: one part is made, with answers as they come."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mindgen.batch import BatchConfig
from mindgen.batch.answer import Answer
from mindgen.batch.answers_table import AnswersTable
from mindgen.batch.job_folder import JobFolder, Manifest
from mindgen.batch.part_schedule import PartSchedule
from mindgen.batch.parts import PartHeader, Parts
from mindgen.batch.sink import open_sink
from mindgen.batch.source import open_source
from mindgen.batch.totals import Totals, TotalsCounter
from mindgen.batch.worker import count_rows

_TEXT = "What a model says is a text like this one, of words, and of marks between them. "
_JOINED = 5  # times that a part is joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job and its cluster.

    Attributes:
        rows_per_second: of a worker of usual speed.
        speed_spread: standard deviation of the logarithm of workers' speeds.
        stragglers: the share of workers that have half the speed.
        losses_per_hour: the share of workers that end in an hour.
        seconds_to_replace: from the end of a worker to the first row of another one in its place.
        slots: rows that a worker computes at once, which are lost with it.
        output_tokens: of a row.
    """

    workers: int
    rows: int
    part_rows: int
    rows_per_second: float
    speed_spread: float
    stragglers: float
    losses_per_hour: float
    seconds_to_replace: float
    slots: int
    output_tokens: int
    seed: int

    @property
    def num_parts(self) -> int:
        return -(-self.rows // self.part_rows)

    def speeds(self, generator: np.random.Generator) -> list[float]:
        """Rows a second of each worker."""
        factors = generator.lognormal(0.0, self.speed_spread, self.workers)
        factors[generator.random(self.workers) < self.stragglers] *= 0.5
        return [float(factor) * self.rows_per_second for factor in factors]


def answers(plan: Plan, num_rows: int, generator: np.random.Generator) -> list[list[Answer]]:
    """Of so many rows, with lengths as they come."""
    lengths = np.maximum(1, generator.lognormal(0, 0.5, num_rows) * plan.output_tokens).astype(int)
    return [
        [
            Answer(
                row=row, sample=0, text=(_TEXT * (4 * length // len(_TEXT) + 1))[: 4 * length], finish_reason="stop",
                adapter_id=f"adapter{row % 16}", adapter_digest=f"{row % 16:064x}", prompt_tokens=200 + row % 100,
                completion_tokens=length,
            )
        ]
        for row, length in enumerate(lengths.tolist())
    ]  # fmt: skip


def part_totals(plan: Plan, generator: np.random.Generator) -> Totals:
    return count_rows(answers(plan, plan.part_rows, generator))


@dataclass(frozen=True, slots=True)
class FileFigures:
    """Of the files of the job, of which one part is made, and its header as often as there are parts.

    Attributes:
        row_bytes: of an answer in a part.
        header_bytes: of a part, whatever it holds.
        resume_seconds: to read and add up the headers of all parts, and to plan those that are missing.
        join_rows_per_second: as the output is written of them, of this processor.
    output_terabytes: of all parts together.
    """

    manifest_bytes: int
    row_bytes: float
    header_bytes: int
    write_seconds: float
    resume_seconds: float
    join_rows_per_second: float
    output_terabytes: float


def measure_files(plan: Plan) -> FileFigures:
    """With all parts but every hundredth there."""
    folder = Path(tempfile.mkdtemp())
    try:
        job = JobFolder(folder / "out.parquet")
        (job.path / "parts").mkdir(parents=True)
        job.save(Manifest(fingerprint={"input": "0" * 32}, num_rows=plan.rows, part_rows=plan.part_rows))
        rows = answers(plan, plan.part_rows, np.random.default_rng(plan.seed))
        header = PartHeader(
            part=0, first_row=0, num_rows=len(rows), rows_digest="0" * 32, totals=count_rows(rows)
        )  # fmt: skip
        start = time.process_time()
        job.parts.write(header, rows)
        write_seconds = time.process_time() - start
        first, *_, last = job.parts.path(0).read_bytes().splitlines(keepends=True)
        num_bytes = job.parts.path(0).stat().st_size
        for part in range(plan.num_parts):
            if part % 100:
                job.parts.path(part).write_bytes(first + last)
        start = time.process_time()
        counter = TotalsCounter()
        for _, each in job.parts.headers():
            assert each is not None
            counter.add_all(each.totals)
        PartSchedule(set(range(plan.num_parts)) - job.parts.there())
        resume_seconds = time.process_time() - start
        manifest_bytes = (job.path / "manifest.json").stat().st_size
    finally:
        shutil.rmtree(folder)
    row_bytes = (num_bytes - len(first)) / plan.part_rows
    terabytes = (plan.rows * row_bytes + plan.num_parts * len(first)) / 1e12
    speed = join_speed(plan)
    return FileFigures(manifest_bytes, row_bytes, len(first), write_seconds, resume_seconds, speed, terabytes)


def join_speed(plan: Plan) -> float:
    """Rows a second, from a part and its rows of the input to the output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(pa.table({"prompt": [_TEXT * 10] * plan.part_rows}), folder / "in.parquet")
        config = BatchConfig(input=str(folder / "in.parquet"), output=str(folder / "out.parquet"))
        source, table, parts = open_source(config.input), AnswersTable(config, "0" * 64), Parts(folder)
        (rows,) = source.blocks(plan.part_rows)
        made = answers(plan, plan.part_rows, np.random.default_rng(plan.seed))
        parts.open_journal(0, "").discard()
        header = PartHeader(part=0, first_row=0, num_rows=len(made), rows_digest="", totals=count_rows(made))
        parts.write(header, made)
        start = time.process_time()
        with open_sink(folder / "out.parquet", source, table.schema, table.text_column) as sink:
            for _ in range(_JOINED):
                (rows,) = source.blocks(plan.part_rows)
                rows.digest()
                sink.write(rows, table.of(parts.read(0)[1]))
        return _JOINED * plan.part_rows / (time.process_time() - start)
