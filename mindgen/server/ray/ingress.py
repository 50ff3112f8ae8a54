"""What Ray Serve gives every request to: it chooses a replica, and hands on what that answers."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

from mindgen.server.answers import error_event, error_response
from mindgen.server.errors import ApiError, unavailable
from mindgen.server.limits.body_size import too_large
from mindgen.server.ray.affinity import Affinity

_SENT = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers",
    "client", "server",
)  # fmt: skip


class Ingress:
    """What an actor of Ray Serve is.

    Args:
        replicas: a handle of ServedReplica.
        max_body_bytes: of a request.
    """

    def __init__(self, replicas: Any, affinity: Affinity, max_body_bytes: int) -> None:
        self._replicas = replicas.options(stream=True)
        self._affinity, self._max_body_bytes = affinity, max_body_bytes

    async def __call__(self, request: Request) -> Response:
        """Of the replica that is best for the request, or that `?replica=N` asks for, as Prometheus has to."""
        relayed = self._relayed(request)
        try:
            start = await anext(relayed)
        except Exception as error:
            return error_response(_as_api_error(error))
        answer = StreamingResponse(_bodies(relayed), start["status"])
        answer.raw_headers = list(start["headers"])
        return answer

    async def _relayed(self, request: Request) -> AsyncGenerator[Message, None]:
        """The messages of the replica's application; who does not read on calls the request off."""
        body, asked = await self._body(request), request.query_params.get("replica")
        place = self._affinity.enter(body, asked)
        scope = {name: request.scope[name] for name in _SENT if name in request.scope}
        messages = self._replicas.answer.remote(place, scope, body)
        try:
            async for message in messages:
                yield message
        finally:
            messages.cancel()
            self._affinity.leave(place)

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._max_body_bytes:
                raise too_large(self._max_body_bytes)
        return bytes(body)


async def _bodies(relayed: AsyncGenerator[Message, None]) -> AsyncGenerator[bytes, None]:
    """After the start; a replica that is lost in the midst is an event with an error."""
    async with aclosing(relayed):
        try:
            async for message in relayed:
                yield message.get("body", b"")
        except Exception as error:
            yield error_event(_as_api_error(error))


def _as_api_error(error: Exception) -> ApiError:
    """Of what a client or Ray has raised: whatever the reason, another replica may be asked."""
    if isinstance(error, ApiError):
        return error
    reason = (str(error).strip().splitlines() or [""])[0]
    return unavailable(f"the replica has ended: {type(error).__name__}: {reason}: ask again", "replica_ended")
