"""What a row of the input asks for: its prompt in tokens, its adapter, its sampling and its own seed."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from mindgen.adapters.registry import BASE_NAME
from mindgen.batch.answer import Answer
from mindgen.batch.config import BatchConfig, InputColumns
from mindgen.batch.model import BatchModel
from mindgen.batch.source import Rows, Source
from mindgen.errors import AdapterError, ConfigError, MindgenError, RequestError, UnknownAdapterError, as_request_error
from mindgen.loop.request_reader import CheckedRequest
from mindgen.sampling_params import SamplingParams, field_names
from mindgen.system.checks import require_text, shown, to_integer, to_token_ids
from mindgen.system.suggestion import did_you_mean
from mindgen.text.guided import read_guide, schema_text

# Of the sampling, what changes no token.
_WITHOUT_EFFECT = ("logprobs", "prompt_logprobs", "processed_logprobs", "priority", "n", "seed")
_NOT_OF_A_ROW = ("n", "deadline_seconds", "logprobs", "prompt_logprobs", "processed_logprobs")
_GUIDES = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
_EXACT_IN_FLOATS = 2**53
_PROMPTS = 'a text, a chat (a list of {"role": ..., "content": ...}), or token ids'


@dataclass(frozen=True, slots=True)
class RowRequest:
    """A request for all samples of a row."""

    row: int
    request: CheckedRequest

    @property
    def is_guided(self) -> bool:
        return any(getattr(self.request.params, name) is not None for name in _GUIDES)


class RowError(Exception):
    """A row asks for what it cannot have; `kind` is an Answer's error_kind."""

    def __init__(self, kind: str, error: MindgenError) -> None:
        super().__init__(str(error))
        self.kind = kind


def used_columns(columns: InputColumns, source: Source, adapter_id: str | None) -> InputColumns:
    """Those that the source has.

    Raises:
        DataError: it has no prompts, or not a column that was named.
        ConfigError: the adapter is said twice.
    """
    usual = InputColumns()
    found: dict[str, Any] = {}
    for role, name in asdict(columns).items():
        is_usual = role != "prompt" and name == getattr(usual, role)
        if name is not None and not is_usual:
            source.check_column(name)
        found[role] = name if name in source.column_names else None
    if found["adapter_id"] is not None and adapter_id is not None:
        raise ConfigError(
            f"the input names each row's adapter in its column {found['adapter_id']!r}: leave out adapter_id "
            f"({adapter_id}), or set columns.adapter_id to null"
        )
    return InputColumns(**found)


class RowReader:
    """Makes requests of rows.

    Args:
        columns: as of `used_columns`.
    """

    def __init__(self, config: BatchConfig, columns: InputColumns, model: BatchModel) -> None:
        self._config = config
        self._columns = columns
        self._model = model
        self._sampling = _RowSampling(_job_sampling(config))

    def read(self, rows: Rows, wanted: Sequence[int]) -> Iterator[RowRequest | list[Answer]]:
        """The requests of some rows, by their place in the block; for one that cannot be served, what it gets."""
        columns = self._columns
        values = [
            [None] * rows.num_rows if name is None else rows.values(name)
            for name in (columns.prompt, columns.adapter_id, columns.sampling, columns.seed)
        ]
        for place in wanted:
            row = rows.first_row + place
            prompt, adapter_id, sampling, seed = (column[place] for column in values)
            # An empty cell of a CSV file, whose cells are all texts; an adapter is named in any case.
            sampling, seed = (None if each == "" else each for each in (sampling, seed))
            if columns.adapter_id is None:
                adapter_id = self._config.adapter_id
            try:
                yield RowRequest(row, self._request(prompt, adapter_id, sampling, seed))
            except RowError as error:
                yield self.failed(row, adapter_id if isinstance(adapter_id, str) else None, error.kind, str(error))

    def failed(self, row: int, adapter_id: str | None, kind: str, error: str) -> list[Answer]:
        return [
            Answer(row=row, sample=sample, error=error, error_kind=kind, adapter_id=adapter_id)
            for sample in range(self._config.n_samples)
        ]

    def _request(self, prompt: Any, adapter_id: Any, sampling: Any, seed: Any) -> CheckedRequest:
        with _failing("sampling"):
            own, seed = self._sampling.of(sampling, self._config.seed if seed is None else seed)
        adapter_id, digest = self._adapter(adapter_id)
        with _failing("prompt"):
            text, token_ids = self._tokens(prompt, own.params)
        params = own.params.with_seed(self._seed(token_ids, digest, own, seed))
        return CheckedRequest(text, token_ids, params, adapter_id)

    def _adapter(self, adapter_id: Any) -> tuple[str | None, str | None]:
        if adapter_id is None or adapter_id == BASE_NAME:
            return None, None
        with _failing("adapter"):
            require_text("adapter_id", adapter_id)
            try:
                return adapter_id, self._model.adapter_digest(adapter_id)
            except UnknownAdapterError:
                if self._config.model.on_missing_adapter == "error":
                    raise
                return adapter_id, None

    def _tokens(self, prompt: Any, params: SamplingParams) -> tuple[str | None, list[int]]:
        """Its text, if it has one, and its tokens, no more than there may be."""
        options = self._config.prompts
        text, token_ids = self._all_tokens(prompt)
        longest = self._model.max_model_len - 1
        most = longest if options.max_length is None else min(options.max_length, longest)
        if len(token_ids) <= most:
            return text, token_ids
        if options.truncation == "error":
            reason = "" if options.max_length is None else f", and prompts.max_length is {options.max_length}"
            raise RowError(
                "too_long",
                RequestError(
                    f"the prompt has {len(token_ids)} tokens, at most {most} fit the model's "
                    f"{self._model.max_model_len} with an answer{reason}"
                ),
            )
        if options.max_length is None:
            most = max(1, self._model.max_model_len - (params.max_tokens or 1))
        return None, token_ids[-most:] if options.truncation == "left" else token_ids[:most]

    def _all_tokens(self, prompt: Any) -> tuple[str | None, list[int]]:
        options = self._config.prompts
        if isinstance(prompt, str):
            require_text("the prompt", prompt)
            if not options.chat:
                return prompt, self._model.encode(prompt)
            prompt = [{"role": "user", "content": prompt}]
        if not isinstance(prompt, list) or not prompt:
            raise RequestError(f"the prompt must be {_PROMPTS}, not {'null' if prompt is None else shown(prompt)}")
        if isinstance(prompt[0], Mapping):
            messages = [_without_nulls(message) for message in prompt]
            made = self._model.chat_prompt(messages, **options.template_variables)
            return made["prompt"], made["prompt_token_ids"]
        return None, to_token_ids("the prompt", prompt)

    def _seed(self, token_ids: list[int], digest: str | None, sampling: "_Sampling", seed: int) -> int:
        """Of the first sample; each other has one more than the one before. It depends on what is asked for alone,
        whenever and beside whatever that is computed."""
        parts = msgspec.msgpack.encode([token_ids, digest, self._model.digest, seed])
        return int.from_bytes(hashlib.blake2b(parts + sampling.key, digest_size=8).digest(), "little")


def _job_sampling(config: BatchConfig) -> SamplingParams:
    """Of all samples of a row, with the log-probabilities that are to be written."""
    given = config.sampling
    logprobs = 0 if config.outputs.logprobs and given.logprobs is None else given.logprobs
    return replace(given, n=config.n_samples, logprobs=logprobs)


@dataclass(frozen=True, slots=True)
class _Sampling:
    """Parameters, and what tells them from others that give other tokens."""

    params: SamplingParams
    key: bytes

    @classmethod
    def of(cls, params: SamplingParams) -> "_Sampling":
        """Raises RequestError where what the text must follow is malformed."""
        read_guide(params.guided_json, params.guided_regex, params.guided_choice, params.guided_grammar)
        if params.guided_json is not None:
            params = replace(params, guided_json=schema_text(params.guided_json))
        values = {name: value for name, value in asdict(params).items() if name not in _WITHOUT_EFFECT}
        return cls(params, json.dumps(values, sort_keys=True, default=str).encode())


class _RowSampling:
    """The sampling of rows: the job's, or what a row says on top of it."""

    def __init__(self, params: SamplingParams) -> None:
        self._job = _Sampling.of(params)

    def of(self, options: Any, seed: Any) -> tuple[_Sampling, int]:
        """Raises RequestError where the row's options are none."""
        given = self._given(options)
        seed = given.pop("seed", seed)
        seed = to_integer("seed", _whole(seed), 0, 2**64 - 1)
        return (_Sampling.of(replace(self._job.params, **given)) if given else self._job), seed

    def _given(self, options: Any) -> dict[str, Any]:
        if isinstance(options, str):
            try:
                options = json.loads(options)
            except ValueError:
                raise RequestError(f"sampling must be an object of options, not {shown(options)}") from None
        if options is None:
            return {}
        if not isinstance(options, Mapping):
            raise RequestError(f"sampling must be an object of options, not {shown(options)}")
        given = {str(name): value for name, value in options.items() if value is not None}
        names = [name for name in field_names() if name not in _NOT_OF_A_ROW]
        for name in given:
            if name not in names:
                raise RequestError(f"sampling has no option {name!r}{did_you_mean(name, names)}")
        if "logit_bias" in given:
            given["logit_bias"] = _logit_bias(given["logit_bias"])
        return given


def _whole(seed: Any) -> Any:
    """Digits as an integer; so, too, a float that is whole, of a column that has seeds for some rows alone."""
    if isinstance(seed, str):
        seed = int(seed) if seed.isdecimal() else float(seed) if seed.removesuffix(".0").isdecimal() else seed
    return int(seed) if isinstance(seed, float) and seed.is_integer() and abs(seed) < _EXACT_IN_FLOATS else seed


def _logit_bias(given: Any) -> Any:
    """With integers for keys, which JSON and structs have as texts; maps of a table come as pairs."""
    if isinstance(given, list) and all(isinstance(each, (list, tuple)) and len(each) == 2 for each in given):
        given = dict(given)
    if not isinstance(given, Mapping):
        return given
    pairs = [(int(key) if isinstance(key, str) and key.isdecimal() else key, bias) for key, bias in given.items()]
    return {token: bias for token, bias in pairs if bias is not None}


@contextmanager
def _failing(kind: str) -> Iterator[None]:
    """Turns errors into those of a row, of a kind."""
    try:
        yield
    except RowError:
        raise
    except (AdapterError, UnknownAdapterError) as error:
        raise RowError("adapter", error) from error
    except Exception as error:
        raise RowError(kind, as_request_error(error, f"reading the row's {kind}")) from error


def _without_nulls(message: Any) -> Any:
    """A message of a table has all keys that any has, null where it has none."""
    if not isinstance(message, Mapping):
        raise RequestError(f"the prompt must be {_PROMPTS}; one of its messages is {shown(message)}")
    return {name: value for name, value in message.items() if value is not None}
