"""/v1/score, in vLLM's form."""

from typing import Literal

from mindgen.server.protocol.body import AnsweredBy, ResponseBody
from mindgen.server.protocol.sampling import DistributionFields, Texts, TokenIds
from mindgen.server.protocol.usage import Usage


class ScoreRequest(DistributionFields):
    """How likely the model finds each text_2 after its text_1; one text_1 stands before every text_2.

    The distribution is that of `processed_logprobs`: unless they are given, the temperature is 1, and nothing is
    filtered.

    Attributes:
        text_1, text_2: a text, several, the token ids of one, or of several.
    """

    text_1: Texts
    text_2: Texts


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
