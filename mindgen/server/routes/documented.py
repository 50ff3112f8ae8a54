"""How routes say in the OpenAPI document what they answer."""

from typing import Any

from mindgen.server.protocol.body import ErrorResponse, ResponseBody

_ERRORS = (400, 401, 403, 404, 413, 422, 429, 503)


def answers(body: type[ResponseBody] | None, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """
    Args:
        body: of a success.
        statuses: of errors; none is all that there are.
    """
    success: dict[str, Any] = {} if body is None else {"model": body}
    documented: dict[int | str, dict[str, Any]] = {200: success}
    for status in statuses or _ERRORS:
        documented[status] = {"model": ErrorResponse}
    return documented
