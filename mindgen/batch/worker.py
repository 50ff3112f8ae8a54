"""Has a model answer the rows of parts, and keeps each answer as soon as it is there."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mindgen.batch.answer import Answer
from mindgen.batch.config import BatchConfig
from mindgen.batch.flow import Flow
from mindgen.batch.model import BatchModel, ModelOpener
from mindgen.batch.parts import Journal, PartHeader, Parts
from mindgen.batch.row_request import RowReader, RowRequest
from mindgen.batch.source import Rows
from mindgen.batch.totals import Totals, TotalsCounter
from mindgen.errors import AdapterError, BatchError, RequestError, UnknownAdapterError
from mindgen.outputs import CompletionOutput, RequestOutput

_SYNC_SECONDS = 1.0
_ROWS_PER_SLOT = 2  # in work, so that the engine has the next one when a row ends


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
        self._open: dict[int, _OpenPart] = {}
        self._last_sync = time.monotonic()
        slots = -(-_ROWS_PER_SLOT * model.num_slots // config.n_samples)
        self._most_rows = config.batch_size or max(slots, 1)
        self._rows_per_call = max(self._most_rows // 4, 1)

    def run(self, blocks: Iterable[tuple[int, Rows]]) -> None:
        """Answers the rows of the parts, but for those whose answers are in their journals.

        Raises:
            BatchError: with fail_fast, a row has failed.
            MindgenError: the model has failed; what was answered is kept.
            OSError: an answer cannot be kept, as the disk is full.
        """
        flow = Flow(self._model.server)
        try:
            for number, rows in blocks:
                self._begin(number, rows, flow)
            while flow.num_rows:
                self._take(flow)
        finally:
            flow.close()
            for part in self._open.values():
                part.journal.close()
            self._open.clear()

    def _begin(self, number: int, rows: Rows, flow: Flow) -> None:
        digest = rows.digest()
        part = _OpenPart(number, rows.first_row, rows.num_rows, digest, self._parts.open_journal(number, digest))
        if self._parts.path(number).is_file():  # a process that was believed to be dead has ended it meanwhile
            part.journal.discard()
            return
        self._open[number] = part
        self._refuse_changed_adapters(part)
        if part.journal.num_torn:
            self._events.torn(number, part.journal.num_torn)
        missing = [place for place in range(rows.num_rows) if rows.first_row + place not in part.journal.answers]
        ready: list[RowRequest] = []
        for asked in self._reader.read(rows, missing):
            if not isinstance(asked, RowRequest):
                self._keep(part, asked)
                continue
            ready.append(asked)
            if len(ready) >= self._rows_per_call or flow.num_rows + len(ready) >= self._most_rows:
                flow.send(ready)
                ready = []
            while flow.num_rows >= self._most_rows:
                self._take(flow)
        if ready:
            flow.send(ready)
        self._seal(part)

    def _refuse_changed_adapters(self, part: _OpenPart) -> None:
        """What is in the journal must be by the adapters that there are now, also on this machine."""
        used = {(each.adapter_id, each.adapter_digest) for row in part.journal.answers.values() for each in row}
        for adapter_id, digest in used:
            if adapter_id is not None and digest is not None:
                refuse_changed_adapter(self._parts.journal_path(part.number), self._model, adapter_id, digest)

    def _take(self, flow: Flow) -> None:
        for asked, output in flow.take(_SYNC_SECONDS):
            part = self._open[asked.row // self._config.part_rows]
            self._keep(part, self._answers(asked, output))
            self._seal(part)
        if time.monotonic() - self._last_sync >= _SYNC_SECONDS:
            self._last_sync = time.monotonic()
            for part in self._open.values():
                part.journal.sync()
            self._events.tick()

    def _keep(self, part: _OpenPart, answers: list[Answer]) -> None:
        part.journal.add(answers)
        self._events.answered(answers)
        failed = next((answer for answer in answers if answer.error is not None), None)
        if failed is not None and self._config.fail_fast:
            raise BatchError(f"row {failed.row} has failed, and fail_fast is set: {failed.error}")

    def _seal(self, part: _OpenPart) -> None:
        """Writes the part, once it is whole."""
        if not part.is_whole or part.number not in self._open:
            return
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

    def _answers(self, asked: RowRequest, output: RequestOutput) -> list[Answer]:
        if output.exception is not None or output.error is not None:
            adapter_id = asked.request.adapter_id
            return self._reader.failed(asked.row, adapter_id, _kind(asked, output), output.error or "it failed")
        return [self._answer(asked.row, output, each) for each in output.outputs]

    def _answer(self, row: int, output: RequestOutput, completion: CompletionOutput) -> Answer:
        options, logprobs = self._config.outputs, None
        if options.logprobs and completion.logprobs is not None:
            pairs = zip(completion.token_ids, completion.logprobs, strict=True)
            logprobs = [float(each[token_id]) for token_id, each in pairs]
        return Answer(
            row=row,
            sample=completion.index,
            text=completion.text,
            finish_reason=completion.finish_reason,
            adapter_id=output.adapter_id,
            adapter_digest=output.adapter_digest,
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(completion.token_ids),
            token_ids=completion.token_ids if options.token_ids else None,
            logprobs=logprobs,
        )


def refuse_changed_adapter(path: Path, model: BatchModel | ModelOpener, adapter_id: str, digest: str) -> None:
    """Raises BatchError where the adapter has not the content any more with which it has answered rows of the path."""
    now = model.adapter_digest(adapter_id)
    if now != digest:
        raise BatchError(
            f"{path}: the job was begun with another adapter {adapter_id}: its digest was {digest}, now {now}. Give it "
            "the adapter of then, name another output, or begin again with overwrite"
        )


def count_rows(rows: Iterable[list[Answer]]) -> Totals:
    """Of the answers to some rows."""
    counter = TotalsCounter()
    for row in rows:
        for answer in row:
            counter.add(answer)
        counter.row_done(any(answer.error is not None for answer in row))
    return counter.totals(0.0)


def _kind(asked: RowRequest, output: RequestOutput) -> str:
    """An Answer's error_kind."""
    if isinstance(output.exception, (AdapterError, UnknownAdapterError)):
        return "adapter"
    if isinstance(output.exception, RequestError):
        return "grammar" if asked.is_guided else "request"
    return "engine"
