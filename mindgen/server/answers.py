"""Responses: JSON, errors, and streams of events that end when the client leaves."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mindgen.server.errors import ApiError, ClientGone, as_api_error
from mindgen.server.protocol.body import ResponseBody

Result = TypeVar("Result")

_JSON = "application/json"
_DONE = b"data: [DONE]\n\n"


def json_response(body: ResponseBody, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body.as_json(), media_type=_JSON, headers=dict(headers or {}))


def error_response(error: ApiError) -> Response:
    return Response(_error_json(error), error.status, media_type=_JSON, headers=error.headers)


def error_event(error: ApiError) -> bytes:
    """The last one of a stream that has failed."""
    return b"data: " + _error_json(error) + b"\n\n"


def _error_json(error: ApiError) -> bytes:
    try:
        return msgspec.json.encode(error.as_body())
    except UnicodeEncodeError:  # the message shows a client's half of a surrogate pair
        return json.dumps(error.as_body()).encode()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work gives; it is cancelled where the client leaves before.

    Raises:
        ClientGone: it has left.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_until_gone(receive))
    ended: list[asyncio.Future[Any]] = []  # in their order: where the client leaves, what it has not taken ends as well
    for task in (working, leaving):
        task.add_done_callback(ended.append)
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if ended[0] is working:
            return working.result()
        raise ClientGone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events; closes what they come from however it ends.

    Args:
        events: bodies of chunks; an ApiError that they raise is the last event.
        send_timeout: seconds that the client may not take an event; 0 is any time.
        on_gone: is called where the client leaves before the end.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[ResponseBody, None],
        send_timeout: float,
        headers: Mapping[str, str],
        on_gone: Callable[[], None],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._events, self._send_timeout, self._on_gone = events, send_timeout or None, on_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send_all(send))
        except ClientGone:
            self._on_gone()

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async with _SendLimit(self._send_timeout) as limit:
                    await self._send_events(events, limit.of(send))
            except (ClientGone, OSError):  # TimeoutError is one
                raise ClientGone from None
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, events: AsyncGenerator[ResponseBody, None], send: Send) -> None:
        try:
            async for body in events:
                await send(_event(body.as_json()))
            await send(_body(_DONE))
        except (ClientGone, OSError):
            raise
        except Exception as error:
            await send(_body(error_event(as_api_error(error))))


def _event(content: bytes) -> Message:
    return _body(b"data: " + content + b"\n\n")


def _body(content: bytes) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": True}


class _SendLimit:
    """Ends what is done within it, with TimeoutError, where a single send takes longer than it may. It looks once in
    that time, as a timer for each send would take as long as the send.

    Args:
        seconds: of a send; None is any time.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)
        self._began: float | None = None  # the send that is under way
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "_SendLimit":
        await self._limit.__aenter__()
        self._look()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(*raised)

    def of(self, send: Send) -> Send:
        async def limited(message: Message) -> None:
            self._began = self._loop.time()
            await send(message)
            self._began = None

        return limited

    def _look(self) -> None:
        if self._seconds is None:
            return
        now = self._loop.time()
        end = (now if self._began is None else self._began) + self._seconds
        if end <= now:
            self._limit.reschedule(now)
        else:
            self._timer = self._loop.call_at(end, self._look)
