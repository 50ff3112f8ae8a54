"""/v1/completions."""

from typing import Annotated, Literal

from pydantic import Field

from mindgen.server.protocol.body import AnsweredBy, ResponseBody
from mindgen.server.protocol.sampling import MOST_LOGPROBS, SamplingFields, Texts, TokenIds
from mindgen.server.protocol.usage import Usage

_MOST_WIDTH = 128


class RankedLogprob(ResponseBody):
    """Of a token at a place of the prompt; vLLM's form."""

    logprob: float
    rank: int
    decoded_token: str | None


PromptLogprobs = list[dict[str, RankedLogprob] | None]


class CompletionRequest(SamplingFields):
    """
    Attributes:
        prompt: a text, several, the token ids of one, or of several.
        max_tokens: 0 generates nothing, which with echo scores the prompt.
        logprobs: how many of the likeliest tokens to name at each place, beside the one that stands there.
        echo: the prompt stands before the text; with logprobs those of its tokens as well.
        suffix: only an empty one.
        processed_logprobs: the choices have those of the distribution that each token was drawn from.
    """

    prompt: Texts
    max_tokens: Annotated[int, Field(ge=0)] = 16
    best_of: Annotated[int, Field(ge=1, le=_MOST_WIDTH)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool = False
    suffix: Literal[""] = ""
    processed_logprobs: bool = False


class CompletionLogprobs(ResponseBody):
    """Lists as long as the tokens.

    Attributes:
        text_offset: where a token's text begins, in characters of the choice's whole text (its echo included).
        token_logprobs, top_logprobs: None for the first token of a prompt.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(ResponseBody):
    """
    Attributes:
        finish_reason: "stop", "length"; None in a stream before the end.
        stop_reason: the text or token that ended it; None for the end of the sequence.
        processed_logprobs: of each token; in a stream at the end.
        weight_versions, adapter_versions: of each token, where weights have changed since the first; at the end.
    """

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: TokenIds | None = None
    prompt_token_ids: TokenIds | None = None
    prompt_logprobs: PromptLogprobs | None = None
    processed_logprobs: list[float] | None = None
    weight_versions: list[int] | None = None
    adapter_versions: list[int | None] | None = None


class CompletionResponse(AnsweredBy):
    """A whole answer, or a chunk of one.

    Attributes:
        created: in seconds since 1970.
        system_fingerprint: the base model's digest.
    """

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
