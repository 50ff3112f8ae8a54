"""The application: routes, what is around them, and errors in OpenAI's form."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mindgen.errors import MindgenError
from mindgen.rlhf.receiver import WeightReceiver
from mindgen.server.adapters.watcher import AdapterWatcher
from mindgen.server.answers import error_response
from mindgen.server.errors import ApiError, ClientGone, as_api_error, bad_request
from mindgen.server.limits.body_size import BodyLimit
from mindgen.server.observe.access_log import AccessLog
from mindgen.server.observe.tracing import Tracing
from mindgen.server.protocol.body import WHOLE_MESSAGE
from mindgen.server.routes import adapters, completions, models, score, status, tokens, weights
from mindgen.server.routes.playground import playground_router
from mindgen.server.service import Service
from mindgen.system.checks import shown

_CLIENT_GONE = 499  # nobody gets it; the log has it


def make_app(
    service: Service, watcher: AdapterWatcher | None, receiver: WeightReceiver | None, tracing: Tracing
) -> FastAPI:
    """
    Args:
        watcher: of a folder of adapters, which runs as long as the application does.
        receiver: of weights, which the application closes at its end.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None, None]:
        service.weights.begin()
        beside = [asyncio.create_task(service.digests.read_all())]
        if watcher is not None:
            beside.append(asyncio.create_task(watcher.run()))
        yield
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if receiver is not None:
            await asyncio.to_thread(receiver.close)
        await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="mindgen", version=version("mindgen"), lifespan=life, docs_url=None, redoc_url=None,
        telemetry=tracing.config(),
    )  # fmt: skip
    app.state.service = service
    for each in (completions, score, models, adapters, weights, tokens, status):
        app.include_router(each.router)
    app.include_router(playground_router())
    app.add_middleware(BodyLimit, most=service.config.max_body_bytes)
    app.add_middleware(AccessLog, write=service.write_log, answered=service.metrics.answered)
    for kind, handler in _handlers(service).items():
        app.add_exception_handler(kind, handler)
    return app


def _handlers(service: Service) -> dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]:
    async def of_mindgen(request: Request, error: Exception) -> Response:
        service.note_failure(error)
        return error_response(as_api_error(error))

    async def of_gone(request: Request, error: Exception) -> Response:
        service.metrics.client_left()
        return Response(status_code=_CLIENT_GONE)

    return {
        ApiError: of_mindgen,
        MindgenError: of_mindgen,
        ClientGone: of_gone,
        RequestValidationError: _of_validation,
        HTTPException: _of_http,
        Exception: _of_bug,
    }


async def _of_bug(request: Request, error: Exception) -> Response:
    """The server's own mistake, whose traceback uvicorn logs."""
    return error_response(as_api_error(error))


async def _of_http(request: Request, error: Exception) -> Response:
    """What the framework refuses: a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message, code = f"Invalid URL ({request.method} {shown(request.url.path)})", "unknown_url"
    else:
        message, code = str(error.detail), None
    headers = dict(error.headers or {})
    return error_response(ApiError(error.status_code, "invalid_request_error", message, code=code, headers=headers))


async def _of_validation(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a body, in one line, by the name of its field."""
    assert isinstance(error, RequestValidationError)
    details = error.errors()[0]
    _, *location = map(str, details["loc"])  # after body, query or path
    if details["type"] == "json_invalid":
        return error_response(bad_request(f"the body is no JSON: {details.get('ctx', {}).get('error', '')}"))
    param = location[0] if location else None
    if details["type"] == "extra_forbidden":
        name = ".".join(location)
        return error_response(
            bad_request(f"Unrecognized request argument supplied: {name}", param, "unknown_parameter")
        )
    if details["type"] == "missing":
        return error_response(bad_request(f"Missing required parameter: {'.'.join(location) or 'the body'}", param))
    if isinstance(details.get("input"), bytes):
        return error_response(bad_request("send JSON, with the header Content-Type: application/json"))
    message = f"{'.'.join(location) or 'the body'}: {details['msg']}"
    if details["type"] != WHOLE_MESSAGE:
        message += f", not {shown(details.get('input'))}"
    return error_response(bad_request(message, param))
