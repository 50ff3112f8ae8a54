"""Runs a job: what is missing is generated, and the output written once all is there."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mindgen.batch.answer import Answer
from mindgen.batch.answers_table import AnswersTable
from mindgen.batch.config import BatchConfig
from mindgen.batch.fingerprint import manifest_of
from mindgen.batch.frames import as_files
from mindgen.batch.job_folder import JobFolder, OutputFile
from mindgen.batch.job_start import begin_or_go_on
from mindgen.batch.model import BatchModel, ConfiguredModel, ModelOpener
from mindgen.batch.part_worker import Assignment
from mindgen.batch.parts import Parts, changed_rows
from mindgen.batch.progress import Progress, Watcher
from mindgen.batch.ray_runner import RayEvents, answer_with_ray
from mindgen.batch.report import write_report
from mindgen.batch.row_request import RowReader, used_columns
from mindgen.batch.sink import check_output, open_sink
from mindgen.batch.source import Rows, Source, open_source
from mindgen.batch.summary import SUMMARY_FILE, BatchSummary, JobFacts, read_summary, write_summary
from mindgen.batch.totals import Totals
from mindgen.batch.worker import Worker, WorkerEvents, count_parts, count_rows, refuse_changed_adapters
from mindgen.errors import BatchError, ConfigError, WorkerError, WorkerFinished
from mindgen.loop.model_files import ModelFiles
from mindgen.loop.roles import serve_if_worker
from mindgen.system.environment import launched_rank
from mindgen.system.memory import sparing_collector

_REPORT = "report.html"
_MOST_FAILURES = 3  # of processes, one after the other without a row between them


class Silent:
    """A Watcher that shows nothing."""

    def begin(self, snapshot: object) -> None: ...
    def update(self, snapshot: object) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self, summary: object) -> None: ...


def run_batch(config: BatchConfig, watcher: Watcher | None = None, opener: ModelOpener | None = None) -> BatchSummary:
    """Generates what the job has not got yet, and writes its output; goes on where an earlier run was ended.

    Rows that fail have their `error` in the output, and are counted in the summary.

    Args:
        watcher: is told how it goes.
        opener: of the model; None is that of the configuration.

    Raises:
        ConfigError: the configuration does not go with the input.
        BatchError: another process works at the job, it was begun with something else, or fail_fast ends it.
        WorkerFinished: this process has served another one to its end.
        MindgenError: the input or the model cannot be read, or a process of the model has died again and again.
        OSError: the disk is full. What was generated is kept, in all these cases.
    """
    choice = config.model
    code = serve_if_worker(ModelFiles.of(choice.path, choice.adapters, choice.checkpoint), config.engine)
    if code is not None:
        raise WorkerFinished(code)
    output = Path(config.output)
    if output.is_dir():
        raise ConfigError(f"{output} is a folder: name the file to write")
    folder = JobFolder(output)
    with folder.held():
        config = replace(config, input=as_files(config.input, folder.input))
        source = open_source(config.input, config.columns.prompt, output)
        return _Run(config, source, folder, watcher or Silent(), opener or ConfiguredModel(config)).run()


class _Run:
    """One run of the job in a folder that is held."""

    def __init__(
        self, config: BatchConfig, source: Source, folder: JobFolder, watcher: Watcher, opener: ModelOpener
    ) -> None:
        self._config, self._source, self._folder, self._watcher = config, source, folder, watcher
        self._opener = opener
        self._columns = used_columns(config.columns, source, config.adapter_id)
        self._table = AnswersTable(config, opener.digest)
        check_output(folder.output, source, self._table.schema, self._table.text_column)
        self._progress = Progress(source.num_rows, config.n_samples)
        own = manifest_of(config, self._columns, source, opener.digest)
        self._manifest = begin_or_go_on(folder, own, opener)
        self._config = replace(config, part_rows=self._manifest.part_rows)
        self._parts = Parts(folder.path)
        self._num_answered = 0
        self._adapter_digests: dict[str, str] = {}  # with which parts were answered

    def run(self) -> BatchSummary:
        if self._config.retry_failed:
            self._reopen_failed()
        if self._manifest.is_finished:
            self._watcher.say(f"{self._folder.output} is there already, by this very job: nothing is left to do")
            return read_summary(self._folder.path / SUMMARY_FILE)
        try:
            self._generate()
            self._write_output()
        except BaseException:
            with suppress(OSError):  # a full disk has ended the run, and is what is raised
                self._end(is_finished=False)
            raise
        return self._end(is_finished=True)

    def _reopen_failed(self) -> None:
        failed = self._parts.failed()
        if failed and self._manifest.is_finished:
            self._manifest.is_finished = False
            self._folder.save(self._manifest)
        for part in failed:
            self._parts.reopen_failed(part)

    def _generate(self) -> None:
        """The parts that are not there, and again after a process of the model has died."""
        self._count_earlier()
        num_failures = 0
        while pending := set(range(self._manifest.num_parts)) - self._parts.there():
            before = self._num_answered
            try:
                return self._answer(pending)
            except WorkerError as error:
                num_failures = 1 if self._num_answered > before else num_failures + 1
                if num_failures == _MOST_FAILURES or not self._may_load_again():
                    raise
                self._watcher.say(f"{error}; the model is loaded again, and the job goes on")

    def _count_earlier(self) -> None:
        """What earlier runs have answered, which must be by the adapters that there are now."""
        for part, header in self._parts.headers():
            if header is None:
                path = self._parts.path(part)
                self._watcher.say(f"{path} is torn, as a crash leaves files: its rows are generated again")
                path.unlink()
        in_parts, in_journals = count_parts(self._parts), count_rows(self._parts.journaled())
        kept = in_parts.plus(in_journals)
        # With Ray, what is in journals counts when its part is whole.
        self._progress.resume(kept if self._config.runner == "local" else in_parts)
        self._adapter_digests = refuse_changed_adapters(self._folder.path, self._opener, kept)
        if self._config.fail_fast and kept.rows_failed:
            raise BatchError(
                f"{kept.rows_failed} row(s) of the job have failed in an earlier run, and fail_fast is set: set "
                "retry_failed to generate them again, or leave out fail_fast"
            )

    def _answer(self, pending: set[int]) -> None:
        if self._config.runner == "ray":
            self._watcher.begin(self._progress.snapshot())
            told = RayEvents(self._note_part, self._tick, self._watcher.say)
            answer_with_ray(Assignment(self._config, self._manifest), pending, told)
            return
        model = self._opener.open()
        try:
            reader = RowReader(self._config, self._columns, model)
            if not self._num_answered:
                self._progress.start()
            events = WorkerEvents(self._note, lambda: self._tick(model), self._note_torn)
            self._watcher.begin(self._progress.snapshot())
            with sparing_collector():
                Worker(self._config, model, reader, self._parts, events).run(self._blocks(pending))
            self._tick(model)
        finally:
            model.close()

    def _may_load_again(self) -> bool:
        """Processes that others have started cannot be started here."""
        return launched_rank() is None and self._config.engine.nnodes == 1

    def _blocks(self, wanted: set[int]) -> Iterator[tuple[int, Rows]]:
        size = self._config.part_rows
        for rows in self._source.blocks(size, lambda number: number not in wanted):
            yield rows.first_row // size, rows

    def _note(self, answers: list[Answer]) -> None:
        for answer in answers:
            self._progress.add(answer)
        self._progress.row_done(any(answer.error is not None for answer in answers))
        self._num_answered += 1

    def _note_torn(self, part: int, num_bytes: int) -> None:
        path = self._parts.journal_path(part)
        self._watcher.say(f"{path}: the last {num_bytes} bytes are torn, as a crash leaves files, and do not count")

    def _note_part(self, part: int, totals: Totals) -> None:
        """Another process has answered it, maybe with what it takes for an adapter of that name."""
        for each in totals.adapters:
            if each.adapter_id is None or each.digest is None:
                continue
            first = self._adapter_digests.setdefault(each.adapter_id, each.digest)
            if first != each.digest:
                self._parts.path(part).unlink()
                raise BatchError(
                    f"adapter {each.adapter_id} is not the same on all machines: its digest is {first} on one and "
                    f"{each.digest} on another. Give all of them the same, and run the job again"
                )
        self._progress.add_all(totals)

    def _tick(self, model: BatchModel | None = None) -> None:
        metrics = None if model is None else model.metrics()
        if metrics is not None:
            self._progress.observe(metrics)
        self._folder.show_life()
        self._watcher.update(self._progress.snapshot())

    def _write_output(self) -> None:
        self._watcher.say(f"all rows are there: writing {self._folder.output}")
        with self._folder.whole_output() as path:
            with open_sink(path, self._source, self._table.schema, self._table.text_column) as sink:
                for part, rows in self._blocks(set(range(self._manifest.num_parts))):
                    header, answers = self._parts.read(part)
                    if header.rows_digest != rows.digest():
                        raise changed_rows(self._parts.path(part))
                    sink.write(rows, self._table.of(answers))
            self._manifest.output = OutputFile.of(path)

    def _end(self, is_finished: bool) -> BatchSummary:
        manifest = self._manifest
        settings = {name: str(value) for name, value in (manifest.fingerprint | manifest.columns).items()}
        facts = JobFacts(
            model=self._config.model.path,
            model_digest=self._opener.digest,
            output=str(self._folder.output),
            settings=settings,
        )
        summary = self._progress.summary(facts, is_finished)
        write_summary(self._folder.path / SUMMARY_FILE, summary)
        write_report(self._folder.path / _REPORT, summary)
        if is_finished:
            self._manifest.is_finished, self._manifest.overwrite = True, False
            self._folder.save(self._manifest)
            self._folder.clear_input()
            if not summary.in_all.rows_failed:
                self._parts.clear()
        self._watcher.end(summary)
        return summary
