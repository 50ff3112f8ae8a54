"""What all bodies of requests and responses have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

WHOLE_MESSAGE = "whole_message"  # the type of pydantic's errors that say what came themselves


class RequestBody(BaseModel):
    """A body that people send: null is as good as absent, and what is not known is refused by its name."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given


class ResponseBody(BaseModel):
    """A body that is sent: a field that was never set is left out, one that was set to None is null."""

    model_config = ConfigDict(protected_namespaces=())

    def as_json(self) -> bytes:
        return self.model_dump_json(exclude_unset=True).encode()


class AnsweredBy(ResponseBody):
    """What has answered, whatever it is called.

    Attributes:
        model_digest: of the files that the base model was loaded from.
        adapter_digest, adapter_version: of the adapter's content and weights; version 0 are those of a folder. None for
            the base model.
        weight_version, weight_checksum: of the base model's weights; version 0 are those that it was loaded with.
    """

    model_digest: str | None = None
    adapter_digest: str | None = None
    adapter_version: int | None = None
    weight_version: int | None = None
    weight_checksum: str | None = None


class ErrorDetails(ResponseBody):
    """Attributes: as OpenAI's error object has them."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(ResponseBody):
    error: ErrorDetails
