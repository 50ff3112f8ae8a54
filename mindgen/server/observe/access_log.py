"""A line of JSON for each request, with its id, which the response has as well; no texts unless asked for."""

import json
import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindgen.server.observe.call_record import CallSummary
from mindgen.server.observe.tracing import annotate

REQUEST_ID = "X-Request-Id"
_ACCEPTED_ID = re.compile(r"[\w.:-]{1,128}")
_POLLED = "/playground/live"  # once a second by each open page


class AccessLog:
    """Around the application; what routes know of a request they put into its scope's state.

    Args:
        write: takes a line; None for no log.
        answered: is told the status of each.
    """

    def __init__(self, app: ASGIApp, write: Callable[[str], None] | None, answered: Callable[[int], None]) -> None:
        self._app, self._write, self._answered = app, write, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # a client that left before there was an answer
        request_id = _request_id(Headers(scope=scope).get(REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            elif not message.get("more_body", False):  # with which the request's span ends
                annotate(request_id, scope["state"].get("summary"))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = 500
            raise
        finally:
            self._answered(status)
            if self._write is not None and scope["path"] != _POLLED:
                self._write(_line(scope, request_id, status, time.perf_counter() - started))


def _request_id(given: str | None) -> str:
    """The client's own, if it is one."""
    return given if given is not None and _ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex


def _line(scope: Scope, request_id: str, status: int, seconds: float) -> str:
    state: dict[str, Any] = scope["state"]
    line: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "client": (scope.get("client") or ("",))[0],
        "key": state.get("caller"),
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 4),
    }
    summary: CallSummary | None = state.get("summary")
    if summary is not None:
        line |= {
            "adapter": summary.adapter_id,
            "prompt_tokens": summary.prompt_tokens,
            "cached_tokens": summary.cached_tokens,
            "completion_tokens": summary.completion_tokens,
            "finish_reasons": summary.finish_reasons,
        }
        if summary.prompts or summary.answers:
            line |= {"prompts": summary.prompts, "answers": summary.answers}
    return json.dumps(line)
