"""Has a model answer the rows of parts, and keeps each answer as soon as it is there."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mindgen.batch.answer import Answer
from mindgen.batch.answering import Answering
from mindgen.batch.config import BatchConfig
from mindgen.batch.model import BatchModel, ModelOpener
from mindgen.batch.parts import Journal, PartHeader, Parts
from mindgen.batch.row_request import RowReader, RowRequest
from mindgen.batch.source import Rows
from mindgen.batch.totals import Totals, TotalsCounter
from mindgen.errors import BatchError

_SYNC_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """What a worker tells.

    Attributes:
        answered: the answers to a row.
        tick: about every second, and after each part.
        torn: the part, and the bytes at the end of its journal that a crash has left.
    """

    answered: Callable[[list[Answer]], None]
    tick: Callable[[], None]
    torn: Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _OpenPart:
    number: int
    first_row: int
    num_rows: int
    rows_digest: str
    journal: Journal

    @property
    def is_whole(self) -> bool:
        return len(self.journal.answers) == self.num_rows


class Worker:
    """Belongs to one thread."""

    def __init__(
        self, config: BatchConfig, model: BatchModel, reader: RowReader, parts: Parts, events: WorkerEvents
    ) -> None:
        self._config, self._model, self._reader = config, model, reader
        self._parts, self._events = parts, events
        self._answering = Answering(config, model, reader)
        self._open: dict[int, _OpenPart] = {}
        self._last_sync = time.monotonic()

    def run(self, blocks: Iterable[tuple[int, Rows]]) -> None:
        """Answers the rows of the parts, but for those whose answers are in their journals.

        Raises:
            BatchError: with fail_fast, a row has failed.
            MindgenError: the model has failed; what was answered is kept.
            OSError: an answer cannot be kept, as the disk is full.
        """
        try:
            for rows in self._answering.run(self._missing(blocks), _SYNC_SECONDS):
                self._keep(rows)
                if time.monotonic() - self._last_sync >= _SYNC_SECONDS:
                    self._sync()
        finally:
            for part in self._open.values():
                part.journal.close()
            self._open.clear()

    def _missing(self, blocks: Iterable[tuple[int, Rows]]) -> Iterator[RowRequest | list[Answer]]:
        """What is asked for by rows that have no answer yet; their parts are opened on the way."""
        for number, rows in blocks:
            part = self._begin(number, rows)
            if part is None:
                continue
            answered, first = part.journal.answers, rows.first_row
            missing = [place for place in range(rows.num_rows) if first + place not in answered]
            yield from self._reader.read(rows, missing)
            if not missing:
                self._seal(part)

    def _begin(self, number: int, rows: Rows) -> _OpenPart | None:
        """Opens a part; None where there is nothing left to do."""
        digest = rows.digest()
        part = _OpenPart(number, rows.first_row, rows.num_rows, digest, self._parts.open_journal(number, digest))
        if self._parts.path(number).is_file():  # a process that was believed to be dead has ended it meanwhile
            part.journal.discard()
            return None
        self._open[number] = part
        self._refuse_changed_adapters(part)
        if part.journal.num_torn:
            self._events.torn(number, part.journal.num_torn)
        return part

    def _refuse_changed_adapters(self, part: _OpenPart) -> None:
        """What is in the journal must be by the adapters that there are now, also on this machine."""
        used = {(each.adapter_id, each.adapter_digest) for row in part.journal.answers.values() for each in row}
        for adapter_id, digest in used:
            if adapter_id is not None and digest is not None:
                refuse_changed_adapter(self._parts.journal_path(part.number), self._model, adapter_id, digest)

    def _keep(self, rows: list[list[Answer]]) -> None:
        touched: dict[int, _OpenPart] = {}
        for answers in rows:
            number = answers[0].row // self._config.part_rows
            touched[number] = self._open[number]
            touched[number].journal.add(answers)
        for part in touched.values():
            part.journal.flush()
        for answers in rows:
            self._events.answered(answers)
            failed = next((answer for answer in answers if answer.error is not None), None)
            if failed is not None and self._config.fail_fast:
                raise BatchError(f"row {failed.row} has failed, and fail_fast is set: {failed.error}")
        for part in touched.values():
            if part.is_whole:
                self._seal(part)

    def _sync(self) -> None:
        self._last_sync = time.monotonic()
        for part in self._open.values():
            part.journal.sync()
        self._events.tick()

    def _seal(self, part: _OpenPart) -> None:
        """Writes the part, which is whole."""
        answers = [row for _, row in sorted(part.journal.answers.items())]
        header = PartHeader(
            part=part.number,
            first_row=part.first_row,
            num_rows=part.num_rows,
            rows_digest=part.rows_digest,
            totals=count_rows(answers),
        )
        self._parts.write(header, answers)
        part.journal.close()
        del self._open[part.number]
        self._events.tick()


def count_rows(rows: Iterable[list[Answer]]) -> Totals:
    """Of the answers to some rows."""
    counter = TotalsCounter()
    for row in rows:
        for answer in row:
            counter.add(answer)
        counter.row_done(any(answer.error is not None for answer in row))
    return counter.totals(0.0)


def count_parts(parts: Parts) -> Totals:
    """Of the answers in parts that are whole."""
    counter = TotalsCounter()
    for _, header in parts.headers():
        if header is not None:
            counter.add_all(header.totals)
    return counter.totals(0.0)


def count_kept(parts: Parts) -> Totals:
    """Of all answers that are there, in parts and journals."""
    return count_parts(parts).plus(count_rows(parts.journaled()))


def refuse_changed_adapter(path: Path, model: BatchModel | ModelOpener, adapter_id: str, digest: str) -> None:
    """Raises BatchError where the adapter has not the content any more with which it has answered rows of the path."""
    now = model.adapter_digest(adapter_id)
    if now != digest:
        raise BatchError(
            f"{path}: the job was begun with another adapter {adapter_id}: its digest was {digest}, now {now}. Give it "
            "the adapter of then, name another output, or begin again with overwrite"
        )


def refuse_changed_adapters(path: Path, model: BatchModel | ModelOpener, totals: Totals) -> dict[str, str]:
    """The digests of the adapters that have answered, by name; raises BatchError where one is another one now."""
    digests = {}
    for each in totals.adapters:
        if each.adapter_id is not None and each.digest is not None:
            refuse_changed_adapter(path, model, each.adapter_id, each.digest)
            digests[each.adapter_id] = each.digest
    return digests
