"""How a request's next tokens are chosen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from mindgen.errors import RequestError
from mindgen.system.checks import require_texts, shown, to_integer, to_number, to_token_ids, to_truth

GREEDY_BELOW = 1e-5  # temperatures that are as good as 0
_MOST_OUTPUTS = 16384  # of one request, so that it leaves room for others
_MOST_PENALTY = 1000.0  # powers of lengths that are still numbers
_TRUTHS = (
    "processed_logprobs", "ignore_eos", "use_beam_search", "skip_special_tokens", "include_stop_str_in_output",
)  # fmt: skip
_GUIDES = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Validated sampling parameters, with vLLM's names and meanings.

    Attributes:
        n: how many outputs the request returns.
        best_of: how many are generated, of which the n likeliest are returned; the width of a beam search. None is n.
        temperature: 0 is greedy; else logits are divided by it.
        top_k: sample among the k likeliest tokens; 0 or -1 is all.
        top_p: sample among the fewest tokens whose probabilities reach p; the token that crosses p is kept.
        min_p: sample among the tokens of at least this share of the likeliest's probability.
        typical_p: sample among the tokens nearest to the expected information whose probabilities reach p
            (arXiv:2202.00666).
        repetition_penalty: > 1 makes tokens of the prompt and the output less likely (CTRL, arXiv:1909.05858).
        presence_penalty: taken from the logits of the output's tokens.
        frequency_penalty: taken from them for each time that they occur.
        seed: of this request alone, that of output i being seed + i; None or -1 draws a fresh one.
        max_tokens: how many tokens to generate at most; None is as many as the context holds.
        min_tokens: how many to generate before the end of sequence or a stop token may come.
        stop: texts that end the output.
        stop_token_ids: tokens that end it.
        ignore_eos: go on to max_tokens even past the end-of-sequence token.
        logit_bias: what is added to tokens' logits.
        bad_words: texts whose last token is never generated after the others.
        allowed_token_ids: the only tokens that may be generated.
        forced_token_ids: what the output begins with, whatever would be likely; their log-probabilities are reported
            like those of tokens that were drawn, -inf of one that could not be.
        logprobs: how many of the likeliest tokens to report with their log-probabilities, beside the chosen one's;
            -1 is all of them, None not even the chosen one's.
        prompt_logprobs: the same for the tokens of the prompt.
        processed_logprobs: report each token's log-probability in the distribution that it was drawn from as well,
            after penalties, temperature and all filters; logprobs are the network's own, before these.
        use_beam_search: search for the likeliest outputs, with max(n, best_of) beams.
        length_penalty: power of the length that a beam's log-probability is divided by.
        early_stopping: whether a beam search ends with as many finished outputs as beams; False looks whether a
            better one is likely, "never" whether it is possible.
        skip_special_tokens: leave them out of the text.
        include_stop_str_in_output: leave the stop text at the text's end.
        guided_json, guided_regex, guided_choice, guided_grammar: what the text must follow; one of them at most.
        num_speculative_tokens: guessed in each step from what followed the last tokens before; 0 guesses none.
        prompt_lookup_max: how many of the last tokens to look for at most.
        deadline_seconds: after which the request ends with what it has.
        priority: requests of lower values go first.

    Raises:
        RequestError: a value is outside its range, or does not go with another.
    """

    n: int = 1
    best_of: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] | None = None
    bad_words: Sequence[str] = ()
    allowed_token_ids: Sequence[int] | None = None
    forced_token_ids: Sequence[int] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    processed_logprobs: bool = False
    use_beam_search: bool = False
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: Sequence[str] | None = None
    guided_grammar: str | None = None
    num_speculative_tokens: int = 0
    prompt_lookup_max: int = 3
    deadline_seconds: float | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        self._normalize()
        self._check_ranges()
        self._check_lists()
        self._check_combinations()

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def num_sequences(self) -> int:
        """How many outputs are generated: best_of, or the width of a beam search."""
        return self.best_of or self.n

    def sample_seed(self, index: int, fallback: int) -> int:
        """The seed of the output of that index; `fallback` stands in where the request has none."""
        return ((fallback if self.seed is None else self.seed) + index) % 2**64

    def with_seed(self, seed: int) -> "SamplingParams":
        """The same with another seed of 64 bits; nothing is checked again, as batches make one for each row."""
        made = object.__new__(SamplingParams)
        for name in _FIELDS:
            object.__setattr__(made, name, getattr(self, name))
        object.__setattr__(made, "seed", seed)
        return made

    def _normalize(self) -> None:
        """One form of what may be given in several."""
        for name in ("stop", "bad_words", "stop_token_ids", "forced_token_ids"):
            value = getattr(self, name)
            self._set(name, () if value is None else (value,) if isinstance(value, str) else _as_tuple(name, value))
        if self.guided_choice is not None and not isinstance(self.guided_choice, str):
            self._set("guided_choice", _as_tuple("guided_choice", self.guided_choice))
        if self.seed == -1:
            self._set("seed", None)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is True:
                self._set(name, 1)

    def _check_ranges(self) -> None:
        """Leaves Python's own numbers, whatever kind they came as."""
        self._integer("n", 1, _MOST_OUTPUTS)
        self._integer("best_of", 1, _MOST_OUTPUTS, optional=True)
        self._number("temperature", 0, expected="0 (greedy) or more")
        self._integer("top_k", -1, expected="0 or -1 (all tokens) or at least 1")
        self._number("top_p", 0, 1, above=True)
        self._number("min_p", 0, 1)
        self._number("typical_p", 0, 1, above=True)
        self._number("repetition_penalty", 0, above=True)
        self._number("presence_penalty", -2, 2)
        self._number("frequency_penalty", -2, 2)
        self._integer("seed", 0, 2**64 - 1, optional=True)
        self._integer("max_tokens", 1, optional=True)
        self._integer("min_tokens", 0)
        self._integer("logprobs", -1, optional=True)
        self._integer("prompt_logprobs", -1, optional=True)
        self._number("length_penalty", -_MOST_PENALTY, _MOST_PENALTY)
        self._integer("num_speculative_tokens", 0)
        self._integer("prompt_lookup_max", 1)
        self._number("deadline_seconds", 0, above=True, optional=True)
        self._integer("priority")
        for name in _TRUTHS:
            self._set(name, to_truth(name, getattr(self, name)))
        if self.early_stopping not in (True, False, "never"):
            raise RequestError(f"early_stopping must be True, False or 'never', not {shown(self.early_stopping)}")

    def _check_lists(self) -> None:
        require_texts("stop", self.stop)
        require_texts("bad_words", self.bad_words)
        for name in ("stop_token_ids", "forced_token_ids"):
            self._set(name, tuple(to_token_ids(name, getattr(self, name))))
        if self.allowed_token_ids is not None:
            self._set("allowed_token_ids", tuple(to_token_ids("allowed_token_ids", self.allowed_token_ids)))
            if not self.allowed_token_ids:
                raise RequestError("allowed_token_ids must not be empty: None allows all tokens")
        if self.logit_bias is not None:
            if not isinstance(self.logit_bias, Mapping):
                raise RequestError(f"logit_bias must map token ids to numbers, not be {shown(self.logit_bias)}")
            token_ids = to_token_ids("logit_bias", list(self.logit_bias))
            biases = [to_number(f"logit_bias of token {token}", bias) for token, bias in self.logit_bias.items()]
            self._set("logit_bias", dict(zip(token_ids, biases, strict=True)))

    @property
    def is_guided(self) -> bool:
        """Whether there is something that the text must follow."""
        return any(getattr(self, name) is not None for name in _GUIDES)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _integer(self, name: str, *limits: Any, optional: bool = False, **options: Any) -> None:
        value = getattr(self, name)
        if value is not None or not optional:
            self._set(name, to_integer(name, value, *limits, **options))

    def _number(self, name: str, *limits: float, optional: bool = False, **options: Any) -> None:
        value = getattr(self, name)
        if value is not None or not optional:
            self._set(name, to_number(name, value, *limits, **options))

    def _check_combinations(self) -> None:
        if self.num_sequences < self.n:
            raise RequestError(f"best_of must be at least n, which is {self.n}, not {self.best_of}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(f"min_tokens must be at most max_tokens, {self.max_tokens}, not {self.min_tokens}")
        if self.is_greedy and self.num_sequences > 1 and not self.use_beam_search:
            name = "n" if self.best_of is None else "best_of"
            raise RequestError(f"{name} must be 1 at temperature 0, where all outputs are the same, not more: "
                               f"{self.num_sequences}")  # fmt: skip
        if self.max_tokens is not None and len(self.forced_token_ids) > self.max_tokens:
            raise RequestError(
                f"forced_token_ids are {len(self.forced_token_ids)}, more than max_tokens, {self.max_tokens}, allows"
            )
        guides = [name for name in _GUIDES if getattr(self, name) is not None]
        if len(guides) > 1:
            raise RequestError(f"at most one of {', '.join(_GUIDES)} may be given, not {' and '.join(guides)}")
        if self.forced_token_ids and (self.use_beam_search or guides):
            raise RequestError(f"forced_token_ids do not go with {', '.join(['use_beam_search', *_GUIDES])}")
        if self.use_beam_search and self.num_speculative_tokens > 0:
            raise RequestError("num_speculative_tokens must be 0 with use_beam_search")
        if self.use_beam_search and self.stop:
            raise RequestError("stop must be empty with use_beam_search: use stop_token_ids")
        if self.use_beam_search and self.logprobs is not None:
            raise RequestError("logprobs must be None with use_beam_search, whose outputs have a cumulative_logprob")
        if self.use_beam_search and self.processed_logprobs:
            raise RequestError("processed_logprobs must be False with use_beam_search, which draws nothing")


_FIELDS = tuple(field.name for field in fields(SamplingParams))


def field_names() -> tuple[str, ...]:
    return _FIELDS


def _as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if hasattr(value, "tolist") and not isinstance(value, memoryview):
        value = value.tolist()
    if isinstance(value, (bytes, bytearray, memoryview, Mapping)) or not isinstance(value, Iterable):
        raise RequestError(f"{name} must be a list, not {shown(value)}")
    return tuple(value)
