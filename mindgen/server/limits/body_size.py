"""Bodies that are too large are refused before they are in memory."""

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindgen.server.answers import error_response
from mindgen.server.errors import ApiError


def too_large(most: int) -> ApiError:
    return ApiError(413, "invalid_request_error", f"the body has more than {most} bytes, the most that is taken")


class BodyLimit:
    """Around the application.

    Args:
        most: bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._most:
                raise HTTPException(413, too_large(self._most).message)
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most:
            await error_response(too_large(self._most))(scope, receive, send)
            return
        await self._app(scope, counted, send)
