"""What the engine says of tokens' probabilities, in the forms of the protocol."""

from collections.abc import Sequence

from mindgen.outputs import Logprob, TokenLogprobs
from mindgen.server.protocol.chat import ChatLogprobs, ChosenToken, ScoredToken
from mindgen.server.protocol.completion import CompletionLogprobs, PromptLogprobs, RankedLogprob
from mindgen.text.detokenizer import IncrementalDetokenizer
from mindgen.text.tokenizer import Tokenizer

_LEAST = -9999.0  # JSON has no infinity; vLLM says this


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """What the token adds to a text, its space included; replacement characters where it is part of a character."""
    return tokenizer.token_bytes(token_id).decode(errors="replace")


class TextOffsets:
    """Where tokens begin in the text that they make: it does not matter how they come, nor whether a stop text holds
    the text back.

    Args:
        first: where the first one begins.
    """

    def __init__(self, detokenizer: IncrementalDetokenizer, first: int) -> None:
        self._detokenizer, self._next = detokenizer, first

    def of(self, token_ids: Sequence[int]) -> list[int]:
        offsets = []
        for token_id in token_ids:
            offsets.append(self._next)
            self._next += len(self._detokenizer.append([token_id]))
        return offsets


class TextLogprobs:
    """Those of one choice of a completion, token by token.

    Args:
        offsets: of the tokens that come.
        most: likeliest tokens to name; the one that stands there is named as well.
    """

    def __init__(self, tokenizer: Tokenizer, offsets: TextOffsets, most: int) -> None:
        self._tokenizer, self._offsets, self._most = tokenizer, offsets, most

    def of(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs | None]) -> CompletionLogprobs:
        """
        Args:
            logprobs: of each of the tokens; None for the first of a prompt.
        """
        found = list(zip(token_ids, logprobs, strict=True))
        return CompletionLogprobs(
            tokens=[token_text(self._tokenizer, token_id) for token_id in token_ids],
            token_logprobs=[None if each is None else _finite(each[token_id]) for token_id, each in found],
            top_logprobs=[None if each is None else self._named(each, token_id) for token_id, each in found],
            text_offset=self._offsets.of(token_ids),
        )

    def _named(self, found: TokenLogprobs, token_id: int) -> dict[str, float]:
        """By the tokens' texts, of which several may be the same: the likeliest has the name."""
        named: dict[str, float] = {}
        for each in [*_likeliest(found, self._most), token_id]:
            named.setdefault(token_text(self._tokenizer, each), _finite(found[each]))
        return named


def with_prompt(prompt: CompletionLogprobs, answer: CompletionLogprobs) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=prompt.tokens + answer.tokens,
        token_logprobs=prompt.token_logprobs + answer.token_logprobs,
        top_logprobs=prompt.top_logprobs + answer.top_logprobs,
        text_offset=prompt.text_offset + answer.text_offset,
    )


def chat_logprobs(
    tokenizer: Tokenizer, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs], most: int
) -> ChatLogprobs:
    """
    Args:
        most: likeliest tokens to name at each place.
    """
    content = []
    for token_id, found in zip(token_ids, logprobs, strict=True):
        likeliest = [_chosen(tokenizer, each, found[each]) for each in _likeliest(found, most)]
        own = _chosen(tokenizer, token_id, found[token_id])
        content.append(ScoredToken(**own.model_dump(), top_logprobs=likeliest))
    return ChatLogprobs(content=content, refusal=None)


def prompt_logprobs(given: Sequence[TokenLogprobs | None] | None) -> PromptLogprobs | None:
    """In vLLM's form."""
    if given is None:
        return None
    return [
        None
        if found is None
        else {
            str(token_id): RankedLogprob(logprob=_finite(each), rank=each.rank, decoded_token=each.decoded_token)
            for token_id, each in found.items()
        }
        for found in given
    ]


def finite_logprobs(logprobs: Sequence[float]) -> list[float]:
    """As JSON can have them."""
    return [_finite(each) for each in logprobs]


def _likeliest(found: TokenLogprobs, most: int) -> list[int]:
    return sorted((each for each in found if found[each].rank <= most), key=lambda each: found[each].rank)[:most]


def _chosen(tokenizer: Tokenizer, token_id: int, logprob: Logprob) -> ChosenToken:
    data = tokenizer.token_bytes(token_id)
    return ChosenToken(token=token_text(tokenizer, token_id), logprob=_finite(logprob), bytes=list(data) or None)


def _finite(logprob: float) -> float:
    return max(float(logprob), _LEAST)
