"""Guided output: which tokens a JSON schema, a regular expression, a list of choices or a grammar admits next."""

import json
import re
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper, grammar_from
from pydantic import BaseModel

from mindgen.engine.guide import WORD_BITS, num_mask_words
from mindgen.errors import RequestError
from mindgen.system.checks import require_text, require_tokens, shown
from mindgen.system.json_file import with_unique_keys
from mindgen.text.guided_grammar import is_gbnf, lark_grammar
from mindgen.text.guided_schema import check_schema
from mindgen.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_CACHED_GRAMMARS = 256
_LONGEST_REASON = 300  # characters
_NOTHING = "nothing can follow it, as where a rule or a $ref needs itself"
# What the compiler says, by the names that users know.
_BETTER_REASONS = (
    (r"NoExtension(Bias)?\b.*", _NOTHING),
    (r"oneOf constraints are not supported.*", "oneOf is served where its alternatives exclude each other: use anyOf"),
    (r"Regex is empty:.*", "no text has the pattern, format and length at once"),
    (r"json-schema:///", ""),
    (r"Failed to generate regex for \w+ range: min=(.*), max=(.*)", r"no range of numbers from \1 to \2 is served"),
    (r"Failed to convert the grammar from GBNF to Lark: ", ""),
)
_JSON_OPTIONS: "JsonCompileOptions" = {
    # One space, or a line break with indentation; models that may write any amount of space at times do nothing else.
    "whitespace_pattern": r"( |\n {0,64})?",
    # \u4e2d is as good as the character.
    "json_allow_general_unicode_escapes": True,
}


@dataclass(frozen=True, slots=True)
class Guide:
    """What an output must be: `text`, in that form."""

    form: Literal["json", "regex", "choice", "grammar"]
    text: str


def read_guide(
    guided_json: dict[str, Any] | str | type[BaseModel] | None = None,
    guided_regex: str | None = None,
    guided_choice: Sequence[str] | None = None,
    guided_grammar: str | None = None,
) -> Guide | None:
    """The guide that a request's parameters ask for; None if they ask for none.

    Args:
        guided_json: a JSON schema, or a pydantic model.
        guided_regex: in Rust's syntax (no look-around, no back-references); the whole output matches it.
        guided_choice: the output is one of these.
        guided_grammar: in Lark's form, or in the GBNF of llama.cpp ("root ::= ...").

    Raises:
        RequestError: there are several, or one is not of its form.
    """
    given = {
        "guided_json": guided_json,
        "guided_regex": guided_regex,
        "guided_choice": guided_choice,
        "guided_grammar": guided_grammar,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise RequestError(f"a request has one guide at most, not {' and '.join(names)}")
    if guided_json is not None:
        return Guide("json", schema_text(guided_json))
    if guided_choice is not None:
        choices = [] if isinstance(guided_choice, str) else list(guided_choice)
        if not choices or not all(isinstance(choice, str) for choice in choices):
            raise RequestError(f"guided_choice must be a list of texts, at least one, not {guided_choice!r}")
        return Guide("choice", _text_or_refuse("guided_choice", json.dumps(choices, ensure_ascii=False)))
    if guided_regex is not None:
        return Guide("regex", _text_or_refuse("guided_regex", guided_regex))
    if guided_grammar is not None:
        return Guide("grammar", _text_or_refuse("guided_grammar", guided_grammar))
    return None


class GuidedMatcher:
    """Where one output stands in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, eos_token_ids: Collection[int]) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._has_ended = False

    @property
    def is_finished(self) -> bool:
        """The output is complete, and nothing but an end token may follow."""
        return self._has_ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    @property
    def may_end(self) -> bool:
        """The output so far is complete; more may be allowed."""
        return self._has_ended or self._matcher.is_accepting()

    def fill_mask(self, mask: np.ndarray) -> None:
        """Sets the bits of the tokens that may come next, and clears all others.

        Args:
            mask: (num_mask_words(vocab_size),) int32 or uint32, contiguous; bit i of word w is token 32 w + i.

        Raises:
            RequestError: the grammar is too complex to go on.
        """
        num_words = num_mask_words(self._vocab_size)
        if mask.shape != (num_words,) or mask.itemsize != 4 or not mask.flags.c_contiguous:
            raise ValueError(f"a mask has {num_words} contiguous words of 32 bits, not {mask.shape} {mask.dtype}")
        if not self.is_finished:
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            self._check()
            return
        words = mask.view(np.uint32)
        words[:] = 0
        for token_id in self._eos_token_ids:
            words[token_id // WORD_BITS] |= np.uint32(1 << token_id % WORD_BITS)

    def accept(self, token_id: int) -> bool:
        """Takes a token, unless the grammar refuses it: then nothing has changed."""
        if self._has_ended:
            return False
        if token_id in self._eos_token_ids:
            self._has_ended = self._matcher.is_accepting()
            return self._has_ended
        if self._matcher.is_stopped():
            return False
        accepted = self._matcher.try_consume_tokens([token_id]) == 1
        self._check()
        return accepted

    def rollback(self, num_tokens: int) -> None:
        """Forgets the last tokens that were accepted."""
        if num_tokens > 0 and self._has_ended:
            self._has_ended = False
            num_tokens -= 1
        if num_tokens > 0 and not self._matcher.rollback(num_tokens):
            raise ValueError(f"cannot take {num_tokens} tokens back: {self._matcher.get_error()}")

    def copy(self) -> "GuidedMatcher":
        """For a fork of the sequence."""
        copied = GuidedMatcher(self._matcher.deep_copy(), self._vocab_size, self._eos_token_ids)
        copied._has_ended = self._has_ended
        return copied

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RequestError(f"the guided output cannot go on: {_reason(self._matcher.get_error())}")


class GuidedCompiler:
    """Compiles guides for one tokenizer; a guide that was seen before starts at once.

    Args:
        vocab_size: the model's, which may be larger than the tokenizer's.
        eos_token_ids: the tokens that end an output.

    Raises:
        RequestError: there are none, or some are outside the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Collection[int]) -> None:
        if not eos_token_ids:
            raise RequestError("guided output needs an end token, and config.json names none: add its eos_token_id")
        require_tokens("eos_token_id of the model, with which guided output ends,", eos_token_ids, vocab_size)
        self._vocab_size = vocab_size
        self._eos_token_ids = frozenset(eos_token_ids)
        vocabulary = TokenizerWrapper(_Vocabulary(tokenizer, vocab_size, sorted(self._eos_token_ids)))
        self._tokenizer = LLTokenizer(vocabulary, eos_token=sorted(self._eos_token_ids))
        self._compiled: OrderedDict[Guide, LLMatcher] = OrderedDict()

    def start(self, guide: Guide) -> GuidedMatcher:
        """A matcher at the beginning of an output.

        Raises:
            RequestError: the guide cannot be compiled.
        """
        compiled = self._compiled.get(guide)
        if compiled is None:
            compiled = self._compiled[guide] = self._compile(guide)
            if len(self._compiled) > _CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(guide)
        return GuidedMatcher(compiled.deep_copy(), self._vocab_size, self._eos_token_ids)

    def _compile(self, guide: Guide) -> LLMatcher:
        try:
            if guide.form == "json":
                grammar = LLMatcher.grammar_from_json_schema(guide.text, _JSON_OPTIONS)
            elif guide.form == "grammar":
                grammar = lark_grammar(guide.text)
            else:
                grammar = grammar_from(guide.form, guide.text)
        except ValueError as error:
            raise RequestError(f"{_name(guide)} is refused: {_reason(str(error))}") from error
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise RequestError(f"{_name(guide)} is refused: {_reason(matcher.get_error())}")
        mask = np.zeros(num_mask_words(self._vocab_size), np.uint32)
        started = GuidedMatcher(matcher.deep_copy(), self._vocab_size, self._eos_token_ids)
        try:
            started.fill_mask(mask)
        except RequestError as error:
            raise RequestError(f"{_name(guide)} is refused: {error}") from error
        if not mask.any():
            raise RequestError(f"{_name(guide)} is refused: {_NOTHING}")
        return matcher


def schema_text(schema: dict[str, Any] | str | type[BaseModel]) -> str:
    """A JSON schema, in any of the forms of guided_json, as JSON.

    Raises:
        RequestError: it is none.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        schema = schema.model_json_schema()
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False, allow_nan=False)
        value = json.loads(text, object_pairs_hook=with_unique_keys)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"guided_json is not a JSON schema: {error}") from error
    if not isinstance(value, (dict, bool)):
        raise RequestError(f"guided_json must be a schema, like {{'type': 'object'}}, not {shown(value)}")
    return _text_or_refuse("guided_json", json.dumps(check_schema(value), ensure_ascii=False))


class _Vocabulary:
    """A tokenizer in the form that llguidance takes."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos_token_ids[0]
        self.bos_token_id = tokenizer.bos_id
        special_ids = tokenizer.special_ids.union(eos_token_ids)
        self.special_token_ids = sorted(token_id for token_id in special_ids if token_id < vocab_size)
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(vocab_size)]

    def __call__(self, text: str) -> list[int]:
        if isinstance(text, bytes):
            raise TypeError("text it must be")  # which tells llguidance to pass text
        return self._tokenizer.encode_fragment(text)


def _text_or_refuse(name: str, text: Any) -> str:
    require_text(name, text)
    return str(text)


def _reason(message: str) -> str:
    """The first line of a message, in the user's words, and what a regular expression's parser says below it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    details = [line.removeprefix("error: ") for line in lines[1:] if line.startswith("error: ")]
    reason = " ".join([*lines[:1], *details])
    for pattern, better in _BETTER_REASONS:
        reason = re.sub(pattern, better, reason)
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}..."


def _name(guide: Guide) -> str:
    if guide.form != "grammar":
        return f"guided_{guide.form}"
    read_as = "GBNF, for it has rules with ::=" if is_gbnf(guide.text) else "Lark, for it has no rule with ::="
    return f"guided_grammar (read as {read_as})"
