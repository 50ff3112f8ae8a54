"""JSON schemas before they are compiled: what the compiler would not hold to is put right, or refused by name."""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NoReturn
from urllib.parse import unquote

from mindgen.errors import RequestError
from mindgen.system.checks import shown
from mindgen.system.suggestion import closest

_HOLDS_SCHEMA = ("items", "additionalItems", "additionalProperties")
_HOLDS_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_HOLDS_NAMED_SCHEMAS = ("properties", "patternProperties")
_UNSERVED = (
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "dependencies",
    "dependentRequired", "dependentSchemas", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
    "$dynamicRef", "$recursiveRef", "divisibleBy", "disallow", "extends",
)  # fmt: skip
_SERVED = (
    "type", "enum", "const", "allOf", "anyOf", "oneOf", "items", "prefixItems", "additionalItems", "minItems",
    "maxItems", "properties", "required", "patternProperties", "additionalProperties", "minProperties",
    "maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern",
    "minLength", "maxLength", "format",
)  # fmt: skip
_SIMILAR = 0.85  # how like a keyword an unknown one is that can be nothing else
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LARGEST = 2**63  # of the compiler's integers
# multipleOf: its digits before the zeros at its end, for which the compiler takes time and memory, and its size.
_MOST_DIGITS, _LARGEST_MULTIPLE, _LEAST_EXPONENT = 100_000, 10**7, -10

# Days that there are, but no leap seconds and no year 0000, which most readers of dates refuse.
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_HOUR = "(?:[01][0-9]|2[0-3])"
_TIME = rf"{_HOUR}:[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:Z|[+-]{_HOUR}:[0-5][0-9])"
_FORMAT_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
_FORMATS = (*_FORMAT_PATTERNS, "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
_NUMBER_FORMATS = ("float", "double")  # which say nothing that JSON could break


def check_schema(schema: Any) -> Any:
    """The schema as the compiler takes it, which afterwards admits nothing that the one given does not.

    Args:
        schema: as JSON holds it; it is changed.

    Raises:
        RequestError: names the place in the schema, and what is not served there.
    """
    if schema is True:
        return {}
    if schema is False:
        raise RequestError("guided_json is refused: false is a schema that nothing satisfies")
    _Checker(schema).check()
    return schema


class _Checker:
    """Of one schema: all that can be reached from its root."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._paths: dict[int, str] = {}  # of schemas seen, by identity
        self._schemas: list[dict[str, Any]] = []
        self._multiples: list[int] = []

    def check(self) -> None:
        waiting = [("#", self._root)]
        while waiting:
            path, schema = waiting.pop()
            if isinstance(schema, dict) and id(schema) not in self._paths:
                self._paths[id(schema)] = path
                self._schemas.append(schema)
                self._check(path, schema)
                waiting += self._inside(path, schema)
        is_merged = any("allOf" in each or ("$ref" in each and len(each) > 1) for each in self._schemas)
        for group in [self._schemas] if is_merged else [[each] for each in self._schemas]:
            self._check_ranges(group)
        if is_merged and math.lcm(*self._multiples) > _MOST_DIGITS:
            raise RequestError("guided_json is refused: its multipleOf have too large a common multiple to be merged")
        self._check_ends()

    def _check(self, path: str, schema: dict[str, Any]) -> None:
        if schema.get("uniqueItems") is False:
            del schema["uniqueItems"]
        for key in schema:
            if key in _UNSERVED:
                _refuse(path, f"{key} is not served")
            if key == "$id" and path != "#":
                _refuse(path, "$id is served at the root alone")
            if key not in _SERVED and not key.startswith(("$", "x-")):
                close = closest(key, _SERVED, _SIMILAR)
                if close is not None:
                    _refuse(path, f"unknown {key!r}; did you mean {close!r}?")
        for key in ("const", "enum"):
            for value in _numbers(schema.get(key)):
                _check_number(f"{path}/{key}", value)
        self._check_limits(path, schema)
        required = schema.get("required")
        num_required = len(set(map(str, required))) if isinstance(required, list) else 0
        num_least = schema.get("minProperties")
        if isinstance(num_least, (int, float)) and num_least > max(1, num_required):
            _refuse(path, f"minProperties {shown(num_least)} needs as many names in required, for others may repeat")
        self._check_format(path, schema)

    def _check_limits(self, path: str, schema: dict[str, Any]) -> None:
        for key in _NUMBERS:
            value = schema.get(key)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            is_largest = key == "maximum" and value == _LARGEST - 1 and schema.get("type") == "integer"
            if not is_largest:  # which the compiler takes for the largest of its integers
                _check_number(f"{path}/{key}", value)
        multiple = schema.get("multipleOf")
        if isinstance(multiple, (int, float)) and not isinstance(multiple, bool):
            if multiple <= 0:
                _refuse(path, f"multipleOf must be above 0, not {shown(multiple)}")
            _, parts, exponent = Decimal(repr(multiple)).normalize().as_tuple()
            digits = int("".join(map(str, parts)))
            if digits > _MOST_DIGITS or multiple > _LARGEST_MULTIPLE or int(exponent) < _LEAST_EXPONENT:
                _refuse(path, f"multipleOf {shown(multiple)} has too many digits")
            self._multiples.append(digits)

    def _check_ranges(self, schemas: list[dict[str, Any]]) -> None:
        """Of schemas that may be merged: that the compiler does not take an excluded whole number for a fraction."""
        for key, others, sign in (("Minimum", "maximum", 1), ("Maximum", "minimum", -1)):
            limits = _bounds(schemas, f"exclusive{key}") + _bounds(
                [each for each in schemas if each.get(f"exclusive{key}") is True], key.lower()
            )
            opposite = _bounds(schemas, others) + _bounds(schemas, f"exclusive{others.capitalize()}")
            for schema, limit in limits:
                if limit == int(limit) and any(0 < sign * (other - limit) < 1 for _, other in opposite):
                    _refuse(self._paths[schema], f"exclusive{key} {limit} is not served with a limit nearer than 1")

    def _check_format(self, path: str, schema: dict[str, Any]) -> None:
        name, types = schema.get("format"), schema.get("type")
        if not isinstance(name, str) or (name in _NUMBER_FORMATS and types in ("number", "integer")):
            return
        if name not in _FORMATS:
            _refuse(path, f"format {shown(name)} is not served, only {', '.join(_FORMATS)}")
        if name in _FORMAT_PATTERNS:
            del schema["format"]
            if "pattern" in schema:
                schema["allOf"] = [*schema.get("allOf", ()), {"pattern": _FORMAT_PATTERNS[name]}]
            else:
                schema["pattern"] = _FORMAT_PATTERNS[name]

    def _inside(self, path: str, schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for key in _HOLDS_SCHEMA:
            if isinstance(schema.get(key), dict):
                yield f"{path}/{key}", schema[key]
        for key in _HOLDS_SCHEMAS:
            if isinstance(schema.get(key), list):
                yield from ((f"{path}/{key}/{place}", each) for place, each in enumerate(schema[key]))
        for key in _HOLDS_NAMED_SCHEMAS:
            if isinstance(schema.get(key), dict):
                yield from ((f"{path}/{key}/{name}", each) for name, each in schema[key].items())
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"], self._target(path, schema["$ref"])

    def _target(self, path: str, reference: str) -> Any:
        """What a $ref names; nothing where the compiler will tell what is wrong with it."""
        own = self._root.get("$id")
        if isinstance(own, str) and reference.startswith(own.rstrip("#") + "#"):
            reference = reference[len(own.rstrip("#")) :]
        if not reference.startswith("#"):
            _refuse(path, f"$ref {shown(reference)} is outside of the schema: put what it names under $defs")
        pointer = unquote(reference[1:])
        if pointer and not pointer.startswith("/"):
            return _find_anchor(self._root, pointer)
        value = self._root
        for part in pointer.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                return None
        return value

    def _check_ends(self) -> None:
        """That no schema needs itself, for its values would have no end."""
        ending: set[int] = set()
        size = -1
        while size < len(ending):
            size = len(ending)
            ending.update(id(each) for each in self._schemas if id(each) not in ending and self._ends(each, ending))
        if id(self._root) in ending or not isinstance(self._root, dict):
            return
        looped = next(each for each in self._schemas if id(each) not in ending and "$ref" in each)
        _refuse(self._paths[id(looped)], f"$ref {shown(looped['$ref'])} leads back to itself without an end")

    def _ends(self, schema: dict[str, Any], ending: set[int]) -> bool:
        """Whether a value of the schema can be written, by what is known of others."""

        def ends(other: Any) -> bool:
            return not isinstance(other, dict) or id(other) in ending

        if isinstance(schema.get("$ref"), str) and not ends(self._target("#", schema["$ref"])):
            return False
        if not all(map(ends, _list(schema.get("allOf")))):
            return False
        for key in ("anyOf", "oneOf"):
            if _list(schema.get(key)) and not any(map(ends, schema[key])):
                return False
        types = schema.get("type", ["null"])
        types = set(types if isinstance(types, list) else [types])
        if "const" in schema or "enum" in schema or not types <= {"object", "array"}:
            return True
        return ("object" in types and self._object_ends(schema, ends)) or (
            "array" in types and self._array_ends(schema, ends)
        )

    @staticmethod
    def _object_ends(schema: dict[str, Any], ends: Any) -> bool:
        properties = schema.get("properties")
        named = properties if isinstance(properties, dict) else {}
        return all(ends(named.get(name)) for name in _list(schema.get("required")) if isinstance(name, str))

    @staticmethod
    def _array_ends(schema: dict[str, Any], ends: Any) -> bool:
        least, items = schema.get("minItems", 0), schema.get("items")
        if not isinstance(least, int):
            return True
        first = _list(schema.get("prefixItems")) or _list(items)
        if not all(map(ends, first[:least])):
            return False
        rest = schema.get("additionalItems") if isinstance(items, list) else items
        return least <= len(first) or ends(rest)


def _refuse(path: str, reason: str) -> NoReturn:
    raise RequestError(f"guided_json is refused: at {path}: {reason}")


def _bounds(schemas: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """A limit's values where numbers may be fractions, each with the identity of its schema."""
    found = ((id(each), each.get(key)) for each in schemas if each.get("type") != "integer")
    return [(path, value) for path, value in found if isinstance(value, (int, float)) and not isinstance(value, bool)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _numbers(value: Any) -> Iterator[int | float]:
    """All numbers in a JSON value."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)


def _check_number(path: str, value: float) -> None:
    """That the compiler, which reckons with doubles and 64 bits, keeps the number as it is."""
    is_kept = math.isfinite(value) if isinstance(value, float) else True
    if not is_kept or abs(value) >= _LARGEST or int(float(value)) != int(value):
        raise RequestError(
            f"guided_json is refused: at {path}: {shown(value)} is not served exactly: expected a number "
            "that is a double, below 2**63; integers up to 2**53 are"
        )


def _find_anchor(value: Any, name: str) -> Any:
    if isinstance(value, dict) and value.get("$anchor") == name:
        return value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for each in inside if (found := _find_anchor(each, name)) is not None), None)
