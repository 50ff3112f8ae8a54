"""The service of the application that a request came to."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from mindgen.server.limits.keys import Caller
from mindgen.server.service import Service


def _service(request: Request) -> Service:
    return request.app.state.service


def _caller(request: Request) -> Caller:
    return _service(request).caller(request)


def _admin(request: Request) -> None:
    _service(request).admin(request)


ServiceOf = Annotated[Service, Depends(_service)]
CallerOf = Annotated[Caller, Depends(_caller)]
AsAdmin = Depends(_admin)
