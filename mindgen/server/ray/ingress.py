"""What Ray Serve gives every request to: it chooses a replica, and hands on what that answers."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

from mindgen.server.answers import error_event, error_response
from mindgen.server.errors import ApiError, unavailable
from mindgen.server.limits.body_size import too_large
from mindgen.server.ray.affinity import Affinity
from mindgen.server.ray.merged import MERGED, Bodies

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
        """Of the replica that is best for the request, or that `?replica=N` asks for; of all together where each knows
        a part.
        """
        asked = request.query_params.get("replica")
        try:
            body = await self._body(request)
            if asked is None and request.method == "GET" and request.url.path in MERGED:
                return await self._of_all(request, body, MERGED[request.url.path])
            relayed = self._relayed(request, body, asked)
            start = await anext(relayed)
        except Exception as error:
            return error_response(_as_api_error(error))
        answer = StreamingResponse(_bodies(relayed), start["status"])
        answer.raw_headers = list(start["headers"])
        return answer

    async def _of_all(self, request: Request, body: bytes, merge: Callable[[Bodies], bytes]) -> Response:
        """Of those that answer; where none does, the first one's refusal.

        They are asked in turn: Ray tells calls apart by the request in which they are made, and never ends to look for
        a replica where two are made at once.
        """
        found: list[Response] = []
        good: dict[int, bytes] = {}
        for place in range(self._affinity.num_replicas):
            try:
                answer = await self._whole(request, body, str(place))
            except Exception as error:
                answer = error_response(_as_api_error(error))
            found.append(answer)
            if answer.status_code == 200:
                good[place] = bytes(answer.body)
        if not good:
            return found[0]
        media_type = next(each.headers["content-type"] for each in found if each.status_code == 200)
        return Response(await asyncio.to_thread(merge, good), headers={"content-type": media_type})

    async def _whole(self, request: Request, body: bytes, asked: str) -> Response:
        async with aclosing(self._relayed(request, body, asked)) as relayed:
            start = await anext(relayed)
            content = b"".join([message.get("body", b"") async for message in relayed])
        answer = Response(content, start["status"])
        answer.raw_headers = list(start["headers"])
        return answer

    async def _relayed(self, request: Request, body: bytes, asked: str | None) -> AsyncGenerator[Message, None]:
        """The messages of the replica's application; who does not read on calls the request off."""
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
