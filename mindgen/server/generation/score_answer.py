"""/v1/score: the log-probabilities of given texts after given others."""

from collections.abc import Sequence

from mindgen.outputs import RequestOutput
from mindgen.rlhf.scoring import forced_params, scored_tokens, scores_of
from mindgen.sampling_params import SamplingParams
from mindgen.server.errors import bad_request
from mindgen.server.generation.answer_head import AnswerHead, answered_by, total_usage
from mindgen.server.generation.call import Order
from mindgen.server.generation.logprobs import finite_logprobs
from mindgen.server.generation.prompts import TokenizedPrompt
from mindgen.server.generation.sampling import DEFAULTED
from mindgen.server.model import ServedModel
from mindgen.server.protocol.sampling import Texts
from mindgen.server.protocol.score import ScoreData, ScoreRequest, ScoreResponse
from mindgen.system.checks import require_text, require_tokens

_SAMPLING = (*DEFAULTED, "presence_penalty", "frequency_penalty", "priority")


def score_order(body: ScoreRequest, model: ServedModel, adapter_id: str | None, deadline: float | None) -> Order:
    """A request for each pair, which gives the tokens of its text_2; long texts take their time.

    Args:
        deadline: in seconds from now.

    Raises:
        ApiError, RequestError: there are not as many texts, one is none, or a pair is longer than the context.
    """
    firsts, seconds = _checked("text_1", body.text_1, model), _checked("text_2", body.text_2, model)
    if len(firsts) == 1:
        firsts *= len(seconds)
    if len(firsts) != len(seconds):
        raise bad_request(
            f"text_1 has {len(firsts)} texts and text_2 {len(seconds)}: give one text_1, or as many", param="text_1"
        )
    options = {name: getattr(body, name) for name in _SAMPLING if getattr(body, name) is not None}
    drawn = SamplingParams(**options, deadline_seconds=deadline)
    prompts, params, most = [], [], model.llm.max_model_len
    for place, pair in enumerate(zip(firsts, seconds, strict=True)):
        first, second = scored_tokens(model.llm, *pair)
        if len(first) + len(second) > most:
            message = f"pair {place} has {len(first) + len(second)} tokens, and the context {most}: shorten it"
            raise bad_request(message, param="text_2", code="context_length_exceeded")
        prompts.append(TokenizedPrompt(None, first))
        params.append(forced_params(drawn, place, second))
    return Order(prompts, params, adapter_id, is_streamed=False)


def score_response(head: AnswerHead, outputs: Sequence[RequestOutput]) -> ScoreResponse:
    data = []
    for index, output in enumerate(outputs):
        scores = scores_of(output)
        logprobs = finite_logprobs(scores.logprobs)
        made = ScoreData(
            index=index, object="score", score=sum(logprobs), token_ids=output.outputs[0].token_ids, logprobs=logprobs,
            processed_logprobs=finite_logprobs(scores.processed_logprobs),
        )  # fmt: skip
        data.append(made)
    usage = total_usage(list(outputs))
    return ScoreResponse(**head.fields(), object="list", data=data, usage=usage, **answered_by(outputs))


def _checked(name: str, given: Texts, model: ServedModel) -> list[str | list[int]]:
    """One text or several, as a list."""
    is_one = isinstance(given, str) or isinstance(given[0], int)
    texts: list[str | list[int]] = [given] if is_one else given  # type: ignore[assignment, list-item]
    for each in texts:
        if not each:
            raise bad_request(f"{name} must not be empty: expected some text, or token ids", param=name)
        if isinstance(each, str):
            require_text(name, each)
        else:
            require_tokens(name, each, model.vocab_size)
    return texts
