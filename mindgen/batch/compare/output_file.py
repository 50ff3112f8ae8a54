"""Reads what a batch job has written, sample by sample, in either form."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet

from mindgen.errors import CheckpointError, UsageError

_ROWS_AT_ONCE = 1000
_TEXT, _TEXTS = "generated_text", "responses"
_PROMPT, _ROW_ID, _SAMPLE_ID = "prompt", "row_id", "sample_id"
_OF_SAMPLE = ("finish_reason", "error", "completion_tokens", "logprobs")


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
    error: str | None
    tokens: int | None
    logprobs: list[float] | None
    scores: list[float | None]


class OutputFile:
    """A file of a job's answers.

    Raises:
        CheckpointError: it is not there, or damaged.
        UsageError: it has not the columns that are asked for, or is of no kind that is known.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.names = _column_names(path)
        prefix = _find_prefix(path, self.names) if columns.prefix is None else columns.prefix
        has_samples = {prefix + _TEXT, prefix + _SAMPLE_ID} <= set(self.names)
        self._is_listed = prefix + _TEXTS in self.names and not has_samples
        self._text = prefix + (_TEXTS if self._is_listed else _TEXT)
        self.key = tuple(columns.key) or (prefix + _ROW_ID,)
        self._sample_id, self._scores = prefix + _SAMPLE_ID, tuple(columns.scores)
        for name in (self._text, *self.key, *self._scores):
            if name not in self.names:
                more = "; say with --key what tells its rows apart" if name == prefix + _ROW_ID else ""
                raise UsageError(f"{path} has no column {name!r}, but {', '.join(self.names)}{more}")
        self._of_sample = {name: prefix + name for name in _OF_SAMPLE if prefix + name in self.names}

    def samples(self) -> Iterator[OutputSample]:
        """In the file's order.

        Raises:
            CheckpointError: the file is damaged.
        """
        wanted = {self._text, *self.key, self._sample_id, _PROMPT, *self._scores, *self._of_sample.values()}
        for rows in _read(self.path, [name for name in self.names if name in wanted], self._string_columns()):
            for row in rows:
                yield from self._samples_of(row)

    def _string_columns(self) -> set[str]:
        """Those that are text, whatever it looks like."""
        others = {self._sample_id, self._of_sample.get("completion_tokens"), *self._scores}
        return set(self.names) - others

    def _samples_of(self, row: dict[str, Any]) -> Iterator[OutputSample]:
        values = [row.get(name) for name in self.key]
        key = None if any(value is None for value in values) else tuple(str(value) for value in values)
        prompt = _text_of(row.get(_PROMPT))
        texts = _as_list(row.get(self._text)) or [] if self._is_listed else [row.get(self._text)]
        for place, text in enumerate(texts):
            of_sample = {name: self._value(row.get(column), place, name) for name, column in self._of_sample.items()}
            tokens = of_sample.get("completion_tokens")
            yield OutputSample(
                key=key,
                sample=place if self._is_listed else int(row.get(self._sample_id) or 0),
                prompt=prompt,
                text=_text_of(text),
                finish_reason=_text_of(of_sample.get("finish_reason")),
                error=_text_of(of_sample.get("error")),
                tokens=None if tokens is None else int(tokens),
                logprobs=_as_list(of_sample.get("logprobs")),
                scores=[_number(self._value(row.get(name), place, "score")) for name in self._scores],
            )

    def _value(self, value: Any, place: int, name: str) -> Any:
        """A sample's own, of the list of all samples of its row; a score may be one for all."""
        if not self._is_listed or value is None or (name == "score" and isinstance(value, int | float)):
            return value
        values = _as_list(value)
        return values[place] if values is not None and place < len(values) else None


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


def _column_names(path: Path) -> list[str]:
    try:
        match path.suffix:
            case ".parquet":
                return list(parquet.read_schema(path).names)
            case ".csv":
                with csv.open_csv(path) as reader:
                    return list(reader.schema.names)
            case ".jsonl":
                names: dict[str, None] = {}
                for rows in _read_json_lines(path):
                    names |= dict.fromkeys(name for row in rows for name in row)
                return list(names)
    except (OSError, pa.ArrowInvalid) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    raise UsageError(f"{path} is no .parquet, .jsonl or .csv file")


def _read(path: Path, columns: Sequence[str], strings: set[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows with these columns, some at once.

    Args:
        strings: columns of a CSV file whose values stay text.
    """
    try:
        if path.suffix == ".parquet":
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                    yield batch.to_pylist()
        elif path.suffix == ".csv":
            convert = csv.ConvertOptions(
                include_columns=list(columns), column_types={name: pa.string() for name in columns if name in strings},
                strings_can_be_null=True, quoted_strings_can_be_null=False,
            )  # fmt: skip
            with csv.open_csv(
                path, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=convert
            ) as reader:
                for batch in reader:
                    yield batch.to_pylist()
        else:
            yield from _read_json_lines(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _read_json_lines(path: Path) -> Iterator[list[dict[str, Any]]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                rows.append(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise CheckpointError(f"{path} line {number} is no JSON object: {error}") from error
            if len(rows) == _ROWS_AT_ONCE:
                yield rows
                rows = []
    yield rows


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


def _number(value: Any) -> float | None:
    """None for what is no number."""
    return float(value) if isinstance(value, int | float) else None
