"""Methods that another process may ask for: marked where they are declared, and known by that alone."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, get_type_hints

Function = TypeVar("Function", bound=Callable[..., Any])
Join = Callable[[Iterable[Any]], Any]

_MARK = "remote_join"


class RemoteCall(NamedTuple):
    """A method that may be asked for.

    Attributes:
        join: makes one result of those of all processes; None where nobody waits for the others'.
    """

    argument_types: tuple[Any, ...]
    result_type: Any
    join: Join | None


def remote(join: Join | None = None) -> Callable[[Function], Function]:
    """Marks a method, whose arguments and result a message must be able to hold."""

    def mark(function: Function) -> Function:
        setattr(function, _MARK, join)
        return function

    return mark


def remote_calls(kind: type) -> dict[str, RemoteCall]:
    """The methods of a class that are marked, with the types that they declare."""
    calls = {}
    for name, function in vars(kind).items():
        if hasattr(function, _MARK):
            types = get_type_hints(function)
            result = types.pop("return")
            calls[name] = RemoteCall(tuple(types.values()), result, getattr(function, _MARK))
    return calls
