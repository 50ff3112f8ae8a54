"""/v1/score, in vLLM's form."""

from typing import Annotated, Literal

from pydantic import Field

from mindgen.server.protocol.body import AnsweredBy, RequestBody, ResponseBody
from mindgen.server.protocol.sampling import TokenIds
from mindgen.server.protocol.usage import Usage

_MOST_PAIRS = 4096

Texts = (
    str
    | Annotated[TokenIds, Field(min_length=1)]
    | Annotated[list[str], Field(min_length=1, max_length=_MOST_PAIRS)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=_MOST_PAIRS)]
)


class ScoreRequest(RequestBody):
    """How likely the model finds each text_2 after its text_1; one text_1 stands before every text_2.

    Attributes:
        model, adapter_id: as of completions.
        text_1, text_2: a text, several, the token ids of one, or of several.
        temperature: of the distribution of `processed_logprobs`, as are the fields below it.
    """

    model: str | None = None
    adapter_id: str | None = None
    text_1: Texts
    text_2: Texts
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    priority: int | None = None
    user: str | None = None


class ScoreData(ResponseBody):
    """
    Attributes:
        score: the sum of logprobs.
        token_ids: of text_2.
        logprobs: of each of them, the network's own.
        processed_logprobs: the same in the distribution that temperature, filters and penalties make.
    """

    index: int
    object: Literal["score"] = "score"
    score: float
    token_ids: TokenIds
    logprobs: list[float]
    processed_logprobs: list[float]


class ScoreResponse(AnsweredBy):
    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ScoreData]
    usage: Usage
    system_fingerprint: str | None = None
