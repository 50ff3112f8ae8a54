"""Files of parts: one process has a journal, and what a crash or a damaged disk leaves is seen."""

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from fake_model import FakeModel
from small_jobs import StoppingModel, job

from mindgen.batch.answer import Answer
from mindgen.batch.job_folder import JobFolder
from mindgen.batch.part_worker import Assignment, PartWorker
from mindgen.batch.parts import Journal, PartHeader, Parts
from mindgen.batch.row_request import RowReader, used_columns
from mindgen.batch.run import run_batch
from mindgen.batch.source import open_source
from mindgen.batch.worker import Worker, WorkerEvents, count_rows
from mindgen.errors import BatchError

PROCESSES = multiprocessing.get_context("spawn")


def zombie(folder: Path, begun: Event, may_end: Event) -> None:
    """Is believed to be dead, but has a journal with an answer, and ends the part after a while."""
    parts = Parts(folder)
    journal = parts.open_journal(0, "d")
    journal.add([Answer(row=0, sample=0, text="its own")])
    journal.flush()
    begun.set()
    may_end.wait()
    journal.add([Answer(row=1, sample=0, text="its own")])
    answers = [journal.answers[row] for row in (0, 1)]
    parts.write(PartHeader(part=0, first_row=0, num_rows=2, rows_digest="d", totals=count_rows(answers)), answers)
    journal.close()


def test_a_process_that_is_believed_to_be_dead_keeps_its_journal_to_itself(tmp_path: Path) -> None:
    begun, may_end = PROCESSES.Event(), PROCESSES.Event()
    process = PROCESSES.Process(target=zombie, args=(tmp_path, begun, may_end))
    process.start()
    try:
        assert begun.wait(60)
        parts = Parts(tmp_path)
        with pytest.raises(BatchError, match="another process still writes it, which was believed to be dead"):
            Journal(parts.journal_path(0), "d", wait_seconds=0.2)
        assert parts.journal_path(0).read_bytes().count(b"\n") == 2
        may_end.set()
        journal = parts.open_journal(0, "d")  # waits for the other one's end
        assert journal.answers == {}
        assert [row[0].text for row in parts.read(0)[1]] == ["its own"] * 2
        journal.close()
    finally:
        may_end.set()
        process.join()


def test_a_part_that_another_process_has_ended_is_not_answered_again(tmp_path: Path) -> None:
    config = job(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_batch(config, opener=StoppingModel(12))
    parts, source = JobFolder(Path(config.output)).parts, open_source(config.input)
    assert parts.there() == {0}
    before, model = parts.path(0).read_bytes(), FakeModel().open()
    reader = RowReader(config, used_columns(config.columns, source, None), model)
    events = WorkerEvents(lambda answers: None, lambda: None, lambda part, num_bytes: None)
    Worker(config, model, reader, parts, events).run([(0, next(source.blocks(10)))])
    model.close()
    assert model.num_answered == 0
    assert parts.path(0).read_bytes() == before and not parts.journal_path(0).exists()


def test_a_damaged_part_is_removed_when_it_is_read(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.open_journal(3, "d").discard()
    answers = [[Answer(row=row, sample=0, text="text")] for row in range(4)]
    parts.write(PartHeader(part=3, first_row=0, num_rows=4, rows_digest="d", totals=count_rows(answers)), answers)
    content = parts.path(3).read_bytes()
    parts.path(3).write_bytes(content.replace(b"text", b"next", 1))
    ((part, header),) = parts.headers()
    assert part == 3 and header is not None and header.totals.rows == 4  # its end is there
    with pytest.raises(BatchError, match="was damaged, and is removed"):
        parts.read(3)
    assert parts.there() == set()


@pytest.mark.parametrize("cut", [1, 5, 25, 200])
def test_a_part_without_its_end_is_seen(tmp_path: Path, cut: int) -> None:
    parts = Parts(tmp_path)
    parts.open_journal(0, "d").discard()
    answers = [[Answer(row=0, sample=0, text="text")]]
    parts.write(PartHeader(part=0, first_row=0, num_rows=1, rows_digest="d", totals=count_rows(answers)), answers)
    assert parts.header(0) is not None
    parts.path(0).write_bytes(parts.path(0).read_bytes()[:-cut])
    assert parts.header(0) is None


def test_a_machine_that_does_not_see_the_job_is_refused(tmp_path: Path) -> None:
    config = job(tmp_path)
    folder = JobFolder(Path(config.output))
    with pytest.raises(KeyboardInterrupt):
        run_batch(config, opener=StoppingModel(12))
    manifest = folder.manifest()
    assert manifest is not None
    (folder.path / "workers.lock").unlink()
    with pytest.raises(
        BatchError, match=r"on \S+: .* does not see .*out.parquet.job: all machines must see the folder"
    ):
        PartWorker(Assignment(config, manifest)).load()
