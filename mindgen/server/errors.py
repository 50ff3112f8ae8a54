"""What a client is told when something goes wrong: OpenAI's error object, with the status that goes with it."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from mindgen.errors import (
    AdapterError,
    AsleepError,
    MindgenError,
    QueueFullError,
    ReplicaEndedError,
    RequestError,
    UnknownAdapterError,
    UsageError,
    WeightUpdateError,
    WorkerError,
)
from mindgen.system.checks import shown

_LONGEST_MESSAGE, _LONGEST_NAME = 1000, 100  # letters that are shown
_FIRST_WORD = re.compile(r"\w+")


class ApiError(Exception):
    """An answer that is no success.

    Args:
        kind: OpenAI's `type`, like "invalid_request_error".
        param: the field that is at fault, if one is.
        code: what programs tell errors apart by, if there is one.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code = status, kind, code
        self.message = _cut(message, _LONGEST_MESSAGE)
        self.param = None if param is None else _cut(param, _LONGEST_NAME)
        self.headers = dict(headers or {})

    def as_body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def _cut(text: str, most: int) -> str:
    """A client may have sent a megabyte where a name belongs."""
    return text if len(text) <= most else f"{text[:most]}..."


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request_error", message, param=param, code=code)


def model_not_found(name: str, hint: str = "") -> ApiError:
    message = f"The model {shown(name)} does not exist{hint}"
    return ApiError(404, "invalid_request_error", message, code="model_not_found")


def too_many(message: str, code: str, retry_after: int) -> ApiError:
    """
    Args:
        retry_after: in seconds.
    """
    return ApiError(429, "rate_limit_error", message, code=code, headers={"Retry-After": str(max(1, retry_after))})


def unavailable(message: str, code: str) -> ApiError:
    return ApiError(503, "server_error", message, code=code, headers={"Retry-After": "1"})


def as_api_error(error: Exception, fields: Collection[str] = ()) -> ApiError:
    """The answer for an error of whatever part.

    Args:
        fields: of the request; a message about a parameter begins with its name.
    """
    match error:
        case ApiError():
            return error
        case UnknownAdapterError():
            return ApiError(404, "invalid_request_error", str(error), code="model_not_found")
        case QueueFullError():
            return too_many(str(error), "queue_full", 1)
        case AsleepError():
            return unavailable(str(error), "asleep")
        case WeightUpdateError():
            return bad_request(str(error), code="weights_refused")
        case RequestError() | UsageError():
            return bad_request(str(error), _named_field(str(error), fields))
        case AdapterError():
            return ApiError(500, "server_error", str(error), code="adapter_error")
        case ReplicaEndedError():
            return unavailable(f"{without_log(str(error))}: ask again, others serve on", "replica_ended")
        case WorkerError():
            return unavailable(str(error), "engine_ended")
        case MindgenError():
            return ApiError(500, "server_error", str(error))
    return ApiError(500, "server_error", f"{type(error).__name__}: the server's log has the details")


def without_log(reason: str) -> str:
    """Why a process has ended, without what it has written: clients need not read that."""
    return reason.partition("\n")[0].removesuffix("; it wrote last:")


def _named_field(message: str, fields: Collection[str]) -> str | None:
    word = _FIRST_WORD.match(message)
    return word[0] if word is not None and word[0] in fields else None
