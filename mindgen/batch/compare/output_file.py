"""Reads what a batch job has written, sample by sample, in either form."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mindgen.batch.rows import Rows
from mindgen.batch.source import open_source
from mindgen.errors import UsageError

_ROWS_AT_ONCE = 1000
_TEXT, _TEXTS = "generated_text", "responses"
_PROMPT, _ROW_ID, _SAMPLE_ID = "prompt", "row_id", "sample_id"
_OF_SAMPLE = (_SAMPLE_ID, "finish_reason", "error", "completion_tokens", "logprobs")


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns to look at.

    Attributes:
        key: what tells rows apart; empty for the job's own number of the row.
        prefix: of the columns that the job has added; None finds it.
        scores: numbers to compare.
    """

    key: Sequence[str] = ()
    prefix: str | None = None
    scores: Sequence[str] = ()


class OutputSample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sample as it stands in the file.

    Attributes:
        key: of its row; None where a column of it is empty.
        sample: of the row's samples, from 0.
        text: None where it failed.
        tokens: of the text; None where the file does not say.
        logprobs: of these.
        scores: in the order of Columns.
    """

    key: tuple[str, ...] | None
    sample: int
    prompt: str | None
    text: str | None
    finish_reason: str | None
    tokens: int | None
    logprobs: list[float] | None
    scores: list[float | None]


class OutputFile:
    """A file of a job's answers.

    Raises:
        DataError: it is not there, or damaged.
        UsageError: it has not the columns that are asked for.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self._source, self._is_csv = open_source(str(path)), path.suffix == ".csv"
        self.names = self._source.column_names
        prefix = _find_prefix(path, self.names) if columns.prefix is None else columns.prefix
        has_samples = {prefix + _TEXT, prefix + _SAMPLE_ID} <= set(self.names)
        self._is_listed = prefix + _TEXTS in self.names and not has_samples
        self._text = prefix + (_TEXTS if self._is_listed else _TEXT)
        self.key = tuple(columns.key) or (prefix + _ROW_ID,)
        self._prefix, self._scores = prefix, tuple(columns.scores)
        for name in (self._text, *self.key, *self._scores):
            if name not in self.names:
                more = "; say with --key what tells its rows apart" if name == prefix + _ROW_ID else ""
                raise UsageError(f"{path} has no column {name!r}, but {', '.join(self.names)}{more}")

    def samples(self) -> Iterator[OutputSample]:
        """In the file's order.

        Raises:
            DataError: the file is damaged.
        """
        for rows in self._source.blocks(_ROWS_AT_ONCE):
            texts, prompts = rows.values(self._text), self._values(rows, _PROMPT)
            keys = zip(*(self._values(rows, name) for name in self.key), strict=True)
            of_sample = zip(*(self._values(rows, self._prefix + name) for name in _OF_SAMPLE), strict=True)
            scores = zip(*(self._values(rows, name) for name in self._scores), strict=True)
            for row in zip(
                keys, prompts, texts, of_sample, scores if self._scores else repeat((), rows.num_rows), strict=True
            ):
                yield from self._samples_of(_Row(*row))

    def _values(self, rows: Rows, name: str) -> list[Any]:
        """None where nothing stands, which CSV files have as an empty cell."""
        values = rows.values(name)
        return [value or None for value in values] if self._is_csv else values

    def _samples_of(self, row: "_Row") -> Iterator[OutputSample]:
        key = None if any(value is None for value in row.key) else tuple(str(value) for value in row.key)
        for place, text in enumerate((_as_list(row.text) or []) if self._is_listed else [row.text]):
            sample_id, finish_reason, error, tokens, logprobs = (self._at(value, place) for value in row.of_sample)
            yield OutputSample(
                key=key,
                sample=place if self._is_listed else int(sample_id or 0),
                prompt=_text_of(row.prompt),
                text=None if error is not None else _text_of(text),
                finish_reason=_text_of(finish_reason),
                tokens=None if tokens is None else int(tokens),
                logprobs=_as_list(logprobs),
                scores=[_number(value if _is_one(value) else self._at(value, place)) for value in row.scores],
            )

    def _at(self, value: Any, place: int) -> Any:
        """A sample's own, of the list of all samples of its row."""
        if not self._is_listed:
            return value
        values = _as_list(value)
        return values[place] if values is not None and place < len(values) else None


class _Row(NamedTuple):
    """The cells of a row; of_sample are those of _OF_SAMPLE."""

    key: tuple[Any, ...]
    prompt: Any
    text: Any
    of_sample: tuple[Any, ...]
    scores: tuple[Any, ...]


def _find_prefix(path: Path, names: Sequence[str]) -> str:
    """Of the one column that can be the answers'.

    Raises:
        UsageError: there is none, or there are several.
    """
    found = {name: end for name in names for end in (_TEXT, _TEXTS) if name.endswith(end)}
    if len(found) == 1:
        (name, end), *_ = found.items()
        return name.removesuffix(end)
    if not found:
        raise UsageError(
            f"{path} is no output of mindgen batch: it has no column {_TEXT!r} or {_TEXTS!r}, but {', '.join(names)}"
        )
    raise UsageError(f"{path} has several columns of answers, {', '.join(found)}: say with --prefix what stands "
                     f"before {_TEXT} or {_TEXTS}")  # fmt: skip


def _as_list(value: Any) -> list[Any] | None:
    """A CSV file has lists as JSON."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return None
    return value if isinstance(value, list) else None


def _text_of(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _is_one(value: Any) -> bool:
    """A number for all samples of a row."""
    return _number(value) is not None


def _number(value: Any) -> float | None:
    """None for what is no number; a CSV file has numbers as text."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
