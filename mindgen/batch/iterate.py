"""Answers row by row, for programs that keep them in their own way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mindgen.batch.answer import Answer
from mindgen.batch.answering import Answering
from mindgen.batch.config import BatchConfig
from mindgen.batch.frames import as_files
from mindgen.batch.model import ConfiguredModel, ModelOpener
from mindgen.batch.row_request import RowReader, RowRequest, used_columns
from mindgen.batch.source import Source, open_source

_BLOCK_ROWS = 1000
_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """A row of the input with its answers.

    Attributes:
        row: its number in the whole input.
        values: of its columns.
        answers: one for each sample; where the row has failed, each says why.
    """

    row: int
    values: dict[str, Any]
    answers: list[Answer]


def iterate_batch(
    config: BatchConfig, skip: Callable[[int], bool] = lambda row: False, opener: ModelOpener | None = None
) -> Iterator[AnsweredRow]:
    """The rows as they are answered, in whatever order that is; nothing is written, and of a folder of input
    config.output is left out.

    Answers are those of `run_batch`: they do not depend on what else runs, nor on when.

    Args:
        skip: the rows, by number, that are not wanted, such as those that the program has already.
        opener: of the model; None is that of the configuration.

    Raises:
        MindgenError: the input or the model cannot be read, or the model has failed.
    """
    with TemporaryDirectory() as folder:
        inputs = as_files(config.input, Path(folder))
        source = open_source(inputs, config.columns.prompt, Path(config.output))
        yield from _iterate(config, source, skip, opener or ConfiguredModel(config))


def _iterate(
    config: BatchConfig, source: Source, skip: Callable[[int], bool], opener: ModelOpener
) -> Iterator[AnsweredRow]:
    columns = used_columns(config.columns, source, config.adapter_id)
    model = opener.open()
    reader = RowReader(config, columns, model)
    values: dict[int, dict[str, Any]] = {}  # of the rows that are in work

    def asked() -> Iterator[RowRequest | list[Answer]]:
        for rows in source.blocks(_BLOCK_ROWS):
            wanted = [place for place in range(rows.num_rows) if not skip(rows.first_row + place)]
            cells = list(zip(*(rows.values(name) for name in source.column_names), strict=True))
            for place in wanted:
                values[rows.first_row + place] = dict(zip(source.column_names, cells[place], strict=True))
            yield from reader.read(rows, wanted)

    try:
        for answered in Answering(config, model, reader).run(asked(), _WAIT_SECONDS):
            for answers in answered:
                row = answers[0].row
                yield AnsweredRow(row, values.pop(row), answers)
    finally:
        model.close()
