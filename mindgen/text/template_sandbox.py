"""A jinja2 environment for chat templates, which come with models from anywhere.

jinja2's sandbox keeps a template away from Python. This one bounds its work as well: every loop, call, filter and
operator is charged for, and no text may grow past a limit. So a template ends, soon, and in little memory.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, cast

from jinja2 import DictLoader, Template, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MAX_STEPS = 1_000_000
_MAX_CHARACTERS = 16_000_000
_CHARACTERS_PER_STEP = 1_000
_MAX_INDENT = 64
_WIDE_FIELD = re.compile(r"\d{8}")


class TemplateRefusal(TemplateError):
    """What a template itself says, through raise_exception, about the messages."""


class _Generation(Extension):
    """{% generation %} marks an answer for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """For one template at a time: `render` starts its account afresh."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=_charge_output,
            loader=DictLoader({}),
        )
        self._num_steps = 0
        self._num_characters = 0
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now, range=self._range)
        del self.globals["lipsum"]
        self.filters["tojson"] = _tojson
        self.filters = {name: self._bounded(function) for name, function in self.filters.items()}
        self.filters |= {"_counted": self._counted, "_concatenated": self._concatenated}

    def render(self, template: Template, variables: dict[str, Any]) -> str:
        """The text of a template of this environment."""
        self._num_steps = self._num_characters = 0
        return template.render(variables)

    def charge(self, value: Any = None) -> Any:
        """Counts a step, or several for a long text; returns the value."""
        size = len(value) if isinstance(value, (str, list, tuple, dict)) else 0
        if size > _MAX_CHARACTERS:
            raise SecurityError(f"makes a text or list longer than {_MAX_CHARACTERS:,}")
        self._num_steps += 1 + size // _CHARACTERS_PER_STEP
        if self._num_steps > _MAX_STEPS:
            raise SecurityError(f"goes on for more than {_MAX_STEPS:,} steps")
        return value

    def charge_output(self, text: str) -> str:
        self._num_characters += len(text)
        if self._num_characters > _MAX_CHARACTERS:
            raise SecurityError(f"writes more than {_MAX_CHARACTERS:,} characters")
        return self.charge(text)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 has wrapped str.format
        if isinstance(owner := getattr(method, "__self__", None), str):
            _check_method(owner, method.__name__, args)
        _check_numbers((*args, *kwargs.values()))
        return __self.charge(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            _check_numbers((left, right))
            if abs(right) > _MAX_INDENT:
                raise SecurityError("raises to a huge power")
        elif operator == "*":
            sizes = [len(value) if isinstance(value, (str, list, tuple)) else value for value in (left, right)]
            if sizes != [left, right] and sizes[0] * sizes[1] > _MAX_CHARACTERS:
                raise SecurityError(f"makes a text or list longer than {_MAX_CHARACTERS:,}")
        elif operator == "%" and isinstance(left, str):
            _check_method(left, "format", (right,))
            _check_numbers(right if isinstance(right, tuple) else (right,))
        return self.charge(super().call_binop(context, operator, left, right))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Before a template is compiled: what it loops over, joins and writes shall pass through here."""
        for loop in list(source.find_all(nodes.For)):
            loop.iter = _filtered(loop.iter, "_counted")
        for output in list(source.find_all(nodes.Output)):
            output.nodes = [
                nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node
                for node in output.nodes
            ]
        return super()._generate(_without_concatenations(source), *args, **kwargs)

    def _bounded(self, function: Callable) -> Callable:
        @functools.wraps(function)  # with the marks of what jinja2 shall pass to it
        def bounded(*args: Any, **kwargs: Any) -> Any:
            texts = [argument for argument in args if isinstance(argument, str)]
            if texts:
                _check_method(texts[0], function.__name__.removeprefix("do_"), texts[1:])
            for argument in args:
                if isinstance(argument, (list, tuple)) and function.__name__.endswith("join"):
                    _check_join(" ".join(texts), argument)
            _check_numbers((*args, *kwargs.values()))
            return self.charge(function(*args, **kwargs))

        return bounded

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.charge()
            yield value

    def _concatenated(self, values: list[Any]) -> str:
        texts = [str(value) for value in values]
        _check_join("", texts)
        return self.charge("".join(texts))

    def _range(self, *args: int) -> range:
        values = range(*args)
        if len(values) > _MAX_STEPS - self._num_steps:
            raise SecurityError(f"goes on for more than {_MAX_STEPS:,} steps")
        self._num_steps += len(values)
        return values


@pass_context
def _charge_output(context: Context, value: Any) -> str:
    environment = context.environment
    assert isinstance(environment, BoundedSandbox)
    return environment.charge_output(str(value))


def _filtered(expression: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, expression), name, [], [], None, None, lineno=expression.lineno)


def _without_concatenations(node: nodes.Template) -> nodes.Template:
    """With `_concatenated` in the place of every "~"."""
    pending: list[nodes.Node] = [node]
    while pending:
        parent = pending.pop()
        for field, value in parent.iter_fields():
            if isinstance(value, list):
                setattr(parent, field, [_without_concatenation(item) for item in value])
            else:
                setattr(parent, field, _without_concatenation(value))
        pending.extend(parent.iter_child_nodes())
    return node.set_environment(node.environment)  # type: ignore[return-value,arg-type]


def _without_concatenation(value: Any) -> Any:
    if not isinstance(value, nodes.Concat):
        return value
    return _filtered(nodes.List(value.nodes, lineno=value.lineno), "_concatenated")


def _check_numbers(values: Iterable[Any]) -> None:
    if any(isinstance(value, int) and abs(value) > _MAX_CHARACTERS for value in values):
        raise SecurityError("computes with a huge number")


def _check_method(text: str, name: str, args: Any) -> None:
    """Refuses what would make a huge text at once."""
    if name == "replace" and len(args) > 1 and text.count(args[0]) * len(args[1]) > _MAX_CHARACTERS:
        raise SecurityError(f"makes a text longer than {_MAX_CHARACTERS:,}")
    if name == "join" and args:
        _check_join(text, args[0])
    if name in ("format", "format_map") and (_WIDE_FIELD.search(text) or len(text) > _MAX_CHARACTERS // 8):
        raise SecurityError("formats a huge field")


def _check_join(separator: str, parts: Any) -> None:
    if isinstance(parts, (list, tuple)):
        size = sum(len(part) + len(separator) for part in parts if isinstance(part, str))
        if size > _MAX_CHARACTERS:
            raise SecurityError(f"makes a text longer than {_MAX_CHARACTERS:,}")


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own would escape for HTML."""
    if indent is not None and indent > _MAX_INDENT:
        raise SecurityError(f"indents by {indent}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
