"""What all routes that generate do around their answers."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from mindgen.server.answers import while_connected
from mindgen.server.errors import ApiError, as_api_error
from mindgen.server.protocol.body import RequestBody
from mindgen.server.service import Service

_GUIDES = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")


async def answered(
    service: Service, request: Request, body: RequestBody, answer: Callable[[], Awaitable[Response]]
) -> Response:
    """The answer, unless the client leaves before; what goes wrong names the client's own field."""
    try:
        return await while_connected(request.receive, answer())  # type: ignore[arg-type]
    except Exception as error:
        service.note_failure(error)
        found = as_api_error(error, type(body).model_fields)
        if found.param in _GUIDES and getattr(body, found.param) is None:
            found.param = next(
                (name for name in ("response_format", "structured_outputs", "tools") if getattr(body, name, None)), None
            )
        if isinstance(error, ApiError) or found.status < 500:
            raise found from error
        raise
