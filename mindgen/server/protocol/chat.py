"""/v1/chat/completions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mindgen.server.protocol.body import AnsweredBy, RequestBody, ResponseBody
from mindgen.server.protocol.completion import PromptLogprobs
from mindgen.server.protocol.sampling import MOST_LOGPROBS, SamplingFields, TokenIds
from mindgen.server.protocol.usage import Usage

_MOST_MESSAGES = 4096
_MOST_TOOLS = 128


class TextPart(BaseModel):
    """A piece of a message's content; other kinds than text are not served."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """
    Attributes:
        arguments: a JSON object, as text.
    """

    name: str
    arguments: str


class CallOfMessage(BaseModel):
    """A call that an earlier message of the assistant made."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(RequestBody):
    """Templates see further fields as they are."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[CallOfMessage] | None = None
    tool_call_id: str | None = None


class FunctionDefinition(BaseModel):
    """
    Attributes:
        parameters: a JSON schema.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[\w.:-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(BaseModel):
    name: str


class NamedTool(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: NamedFunction


class ChatCompletionRequest(SamplingFields):
    """
    Attributes:
        max_tokens, max_completion_tokens: two names of one limit; None is as many as the context holds.
        logprobs: say how likely each token was, and with top_logprobs as many others at its place.
        tools: functions that the model may call, if its chat template knows how to name them.
        parallel_tool_calls: False lets the model call one function at most, where it has to call some.
        chat_template_kwargs: what the template takes besides.
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=_MOST_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    best_of: Literal[1] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], Field(max_length=_MOST_TOOLS)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool = True
    documents: list[dict[str, Any]] | None = None
    modalities: list[Literal["text"]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


class ChosenToken(ResponseBody):
    """
    Attributes:
        bytes: of its text in UTF-8, which may be a part of a character.
    """

    token: str
    logprob: float
    bytes: list[int] | None


class ScoredToken(ChosenToken):
    top_logprobs: list[ChosenToken]


class ChatLogprobs(ResponseBody):
    content: list[ScoredToken]
    refusal: None = None


class ToolFunction(ResponseBody):
    """Parts of it where it is a piece of a stream."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(ResponseBody):
    """
    Attributes:
        index: of the message's calls, in a stream.
    """

    index: int | None = None
    id: str | None = None
    type: Literal["function"] | None = None
    function: ToolFunction


class AnswerMessage(ResponseBody):
    """A whole message, or what a chunk adds to one."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(ResponseBody):
    """
    Attributes:
        message: of a whole answer.
        delta: of a chunk.
        finish_reason: "stop", "length", "tool_calls"; None in a stream before the end.
    """

    index: int
    message: AnswerMessage | None = None
    delta: AnswerMessage | None = None
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: TokenIds | None = None


class ChatCompletionResponse(AnsweredBy):
    """A whole answer, or a chunk of one; attributes as of CompletionResponse."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
    prompt_token_ids: TokenIds | None = None
    prompt_logprobs: PromptLogprobs | None = None
