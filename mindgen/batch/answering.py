"""Has a model answer rows, as many at once as keep it busy."""

from collections.abc import Iterable, Iterator

from mindgen.batch.answer import Answer
from mindgen.batch.config import BatchConfig
from mindgen.batch.flow import Flow
from mindgen.batch.model import BatchModel
from mindgen.batch.row_request import RowReader, RowRequest
from mindgen.errors import AdapterError, RequestError, UnknownAdapterError
from mindgen.outputs import CompletionOutput, RequestOutput

_ROWS_PER_SLOT = 2  # in work, so that the engine has the next one when a row ends


class Answering:
    """Belongs to one thread."""

    def __init__(self, config: BatchConfig, model: BatchModel, reader: RowReader) -> None:
        self._options, self._server, self._reader = config.outputs, model.server, reader
        slots = -(-_ROWS_PER_SLOT * model.num_slots // config.n_samples)
        self._most_rows = config.batch_size or max(slots, 1)
        self._rows_per_call = max(self._most_rows // 4, 1)

    def run(self, asked: Iterable[RowRequest | list[Answer]], seconds: float) -> Iterator[list[list[Answer]]]:
        """The answers to rows as they come, of several rows at once; the next ones are asked for meanwhile.

        Args:
            asked: what a RowReader makes of rows.
            seconds: after which there is an empty list where nothing has come.

        Raises:
            MindgenError: the model has failed.
        """
        flow = Flow(self._server)
        ready: list[RowRequest] = []
        try:
            for each in asked:
                if not isinstance(each, RowRequest):
                    yield [each]
                    continue
                ready.append(each)
                if len(ready) >= self._rows_per_call or flow.num_rows + len(ready) >= self._most_rows:
                    flow.send(ready)
                    ready = []
                while flow.num_rows >= self._most_rows:
                    yield self._take(flow, seconds)
            if ready:
                flow.send(ready)
            while flow.num_rows:
                yield self._take(flow, seconds)
        finally:
            flow.close()

    def _take(self, flow: Flow, seconds: float) -> list[list[Answer]]:
        return [self._answers(asked, output) for asked, output in flow.take(seconds)]

    def _answers(self, asked: RowRequest, output: RequestOutput) -> list[Answer]:
        if output.exception is not None or output.error is not None:
            adapter_id = asked.request.adapter_id
            return self._reader.failed(asked.row, adapter_id, _kind(asked, output), output.error or "it failed")
        return [self._answer(asked.row, output, each) for each in output.outputs]

    def _answer(self, row: int, output: RequestOutput, completion: CompletionOutput) -> Answer:
        logprobs = None
        if self._options.logprobs and completion.logprobs is not None:
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
            token_ids=completion.token_ids if self._options.token_ids else None,
            logprobs=logprobs,
        )


def _kind(asked: RowRequest, output: RequestOutput) -> str:
    """An Answer's error_kind."""
    if isinstance(output.exception, (AdapterError, UnknownAdapterError)):
        return "adapter"
    if isinstance(output.exception, RequestError):
        return "grammar" if asked.is_guided else "request"
    return "engine"
