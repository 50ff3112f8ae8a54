"""The columns that a job adds to its input."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mindgen.batch.answer import Answer
from mindgen.batch.config import BatchConfig

TEXT_COLUMN, TEXTS_COLUMN = "generated_text", "responses"
_TOKENS = pa.list_(pa.int32())
_LOGPROBS = pa.list_(pa.float64())


class AnswersTable:
    """Turns answers into columns, in the form that the job wants.

    Args:
        model_digest: of what answered, but for adapters.

    Attributes:
        text_column: the name of the one with the texts.
    """

    def __init__(self, config: BatchConfig, model_digest: str) -> None:
        self._options, self._model_digest = config.outputs, model_digest
        self._is_listed = config.outputs.form == "responses"
        self.text_column = config.outputs.prefix + (TEXTS_COLUMN if self._is_listed else TEXT_COLUMN)
        self.schema = pa.schema(self._fields(config))

    def _fields(self, config: BatchConfig) -> list[pa.Field]:
        of_row = [
            ("row_id", pa.int64()), ("model_digest", pa.string()), ("adapter_digest", pa.string()),
            ("prompt_tokens", pa.int32()),
        ]  # fmt: skip
        of_sample = [
            ("finish_reason", pa.string()), ("error", pa.string()), ("completion_tokens", pa.int32()),
            *([("token_ids", _TOKENS)] if config.outputs.token_ids else []),
            *([("logprobs", _LOGPROBS)] if config.outputs.logprobs else []),
        ]  # fmt: skip
        if config.model.on_missing_adapter == "base":
            of_row.append(("answered_by", pa.string()))
        if self._is_listed:
            of_sample = [(name, pa.list_(kind)) for name, kind in of_sample]
        texts = (self.text_column, pa.list_(pa.string()) if self._is_listed else pa.string())
        samples = [] if self._is_listed else [(f"{self._options.prefix}sample_id", pa.int32())]
        rest = [(self._options.prefix + name, kind) for name, kind in [*of_sample, *of_row]]
        return [pa.field(name, kind) for name, kind in [texts, *samples, *rest]]

    def of(self, rows: Sequence[Sequence[Answer]]) -> pa.Table:
        """A line for each sample, or for each row with lists of its samples'."""
        if self._is_listed:
            lines = [self._row(row[0]) | _listed([self._sample(answer) for answer in row]) for row in rows]
        else:
            lines = [
                self._row(answer) | self._sample(answer) | {"sample_id": answer.sample}
                for row in rows
                for answer in row
            ]
        columns = []
        for field in self.schema:
            name = "text" if field.name == self.text_column else field.name.removeprefix(self._options.prefix)
            columns.append(pa.array([line[name] for line in lines], field.type))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _row(self, answer: Answer) -> dict[str, Any]:
        return {
            "row_id": answer.row,
            "model_digest": self._model_digest,
            "adapter_digest": answer.adapter_digest,
            "prompt_tokens": None if answer.error is not None else answer.prompt_tokens,
            "answered_by": None if answer.error is not None else answer.adapter_id or "base",
        }

    def _sample(self, answer: Answer) -> dict[str, Any]:
        return {
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "error": answer.error,
            "completion_tokens": None if answer.error is not None else answer.completion_tokens,
            "token_ids": answer.token_ids,
            "logprobs": answer.logprobs,
        }


def _listed(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: [sample[name] for sample in samples] for name in samples[0]}
