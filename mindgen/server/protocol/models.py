"""/v1/models, adapters that are loaded and unloaded, and the tokenizer's endpoints."""

from typing import Literal

from mindgen.server.protocol.body import RequestBody, ResponseBody
from mindgen.server.protocol.chat import ChatMessage, Tool
from mindgen.server.protocol.sampling import TokenIds


class ModelCard(ResponseBody):
    """The base model, or an adapter.

    Attributes:
        created: when the server came to have it, in seconds since 1970.
        root: where it is.
        parent: of an adapter, the base model's name.
        digest: of its content; None for an adapter that nobody has used, as long as its files have not been read.
        weight_version, weight_checksum: of the base model.
        is_resident: whether an adapter is in the network's memory now.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mindgen"
    root: str
    parent: str | None
    max_model_len: int
    digest: str | None
    weight_version: int | None = None
    weight_checksum: str | None = None
    is_resident: bool | None = None


class ModelList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class LoadAdapterRequest(RequestBody):
    """
    Attributes:
        lora_path: a folder below one of the server's roots.
        load_inplace: the name may be another adapter's, which it is taken from for new requests.
    """

    lora_name: str
    lora_path: str
    load_inplace: bool = False


class UnloadAdapterRequest(RequestBody):
    """
    Attributes:
        lora_int_id: is taken, and changes nothing.
    """

    lora_name: str
    lora_int_id: int | None = None


class TokenizeRequest(RequestBody):
    """A prompt, or messages with what the chat template takes.

    Attributes:
        add_special_tokens: those around a prompt; None is the usual: a prompt has them, a template's text does not.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool | None = None
    return_token_strs: bool = False


class TokenizeResponse(ResponseBody):
    count: int
    max_model_len: int
    tokens: TokenIds
    token_strs: list[str] | None = None


class DetokenizeRequest(RequestBody):
    model: str | None = None
    tokens: TokenIds


class DetokenizeResponse(ResponseBody):
    prompt: str
