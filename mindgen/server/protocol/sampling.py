"""The fields of completions and chat completions alike: OpenAI's, and those that vLLM has besides."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from mindgen.server.protocol.body import WHOLE_MESSAGE, RequestBody
from mindgen.system.checks import shown

MOST_LOGPROBS = 20
_MOST_STOPS = 64  # OpenAI takes 4
_MOST_CHOICES = 128

_MOST_TEXTS = 4096

TokenIds = list[int]


def _in_one_rule(given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """What is wrong by the whole rule: pydantic says it by each of the forms, and first by one that was not meant."""
    try:
        return validate(given)
    except ValidationError as error:
        came = f"a list of {len(given)}" if isinstance(given, list) and len(given) > _MOST_TEXTS else shown(given)
        message = f"expected a text, token ids, or a list of 1 to {_MOST_TEXTS} that are all texts or all token ids"
        raise PydanticCustomError(WHOLE_MESSAGE, "{message}", {"message": f"{message}, not {came}"}) from error


# A text, several, the token ids of one, or of several.
Texts = Annotated[
    str
    | Annotated[TokenIds, Field(min_length=1)]
    | Annotated[list[str], Field(min_length=1, max_length=_MOST_TEXTS)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=_MOST_TEXTS)],
    WrapValidator(_in_one_rule),
]


class StreamOptions(RequestBody):
    """
    Attributes:
        include_usage: one more chunk at the end says what was used.
        continuous_usage_stats: every chunk does.
        include_obfuscation: is taken, and changes nothing: chunks are not padded.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class JsonSchema(BaseModel):
    """`strict` makes no difference: what comes always follows the schema."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    name: str = "schema"
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(BaseModel):
    """vLLM's newer name of guided_*; one of them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    json_schema: str | dict[str, Any] | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class DistributionFields(RequestBody):
    """Who answers, and from which distribution tokens are drawn. user is taken, and changes nothing.

    Attributes:
        model: the base model's name or an adapter's; None is the base model.
        adapter_id: another way to name the adapter; "base" is none.
    """

    model: str | None = None
    adapter_id: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    priority: int = 0
    user: str | None = None


class SamplingFields(DistributionFields):
    """How tokens are chosen and what is said of them. None takes the server's default.

    metadata, store, service_tier, safety_identifier, prompt_cache_key and request_id are taken and change
    nothing.

    Attributes:
        return_token_ids: the choices have token_ids, and the prompt its own.
        add_special_tokens: those that the model expects around a prompt; None is the usual of the endpoint.
    """

    n: Annotated[int, Field(ge=1, le=_MOST_CHOICES)] = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    use_beam_search: bool = False
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=_MOST_STOPS)] = Field(default_factory=list)
    stop_token_ids: TokenIds = Field(default_factory=list)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    logit_bias: dict[str, float] | None = None
    bad_words: list[str] = Field(default_factory=list)
    allowed_token_ids: TokenIds | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: Literal[True] = True
    prompt_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    add_special_tokens: bool | None = None
    return_token_ids: bool = False
    num_speculative_tokens: Annotated[int, Field(ge=0, le=16)] = 0
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    response_format: ResponseFormat | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    request_id: str | None = None
