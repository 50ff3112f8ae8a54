"""What schemas and grammars admit, by the standard; what cannot be held to is refused, and the place is named."""

import calendar
import datetime
import json
import random

import numpy as np
import pytest

from mindgen import LLM, SamplingParams
from mindgen.errors import RequestError
from mindgen.store import embedded
from mindgen.text.guided import GuidedCompiler, read_guide
from mindgen.text.tokenizer import load_tokenizer

PROMPT = "An increasing sequence: one,"
GREEDY = SamplingParams(temperature=0, max_tokens=8)
INTEGER, TEXT = {"type": "integer"}, {"type": "string"}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(embedded.demo_folder())


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return GuidedCompiler(tokenizer, tokenizer.vocab_size, (tokenizer.eos_id,))


@pytest.fixture
def admits(tokenizer, compiler):
    def admits(guide: dict, text: str) -> bool:
        matcher = compiler.start(read_guide(**guide))
        return all(matcher.accept(token_id) for token_id in tokenizer.encode_fragment(text)) and matcher.may_end

    return admits


@pytest.mark.parametrize("year", [1, 4, 100, 400, 1900, 2000, 2023, 2024, 2100, 2400, 9996, 9999])
def test_dates_are_those_of_the_calendar(admits, year):
    guide = {"guided_json": {"type": "string", "format": "date"}}
    for month in range(14):
        last = calendar.monthrange(year, month)[1] if 1 <= month <= 12 else 0
        for day in (0, 1, 9, 10, 28, 29, 30, 31, 32):
            assert admits(guide, f'"{year:04}-{month:02}-{day:02}"') == (1 <= day <= last)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("date", ["2024-02-29"], ["2023-02-29", "0000-01-01", "2024-2-29", "2024-02-29Z", "x"]),
        ("time", ["23:59:59Z", "00:00:00.125+23:59", "12:30:00-01:30"],
         ["24:00:00Z", "12:30:60Z", "12:30:00", "12:30:00+24:00", "12:30Z", "12:30:00.Z"]),
        ("date-time", ["2024-02-29T23:59:59Z"], ["2023-02-29T00:00:00Z", "2024-02-29 00:00:00Z", "2024-02-29"]),
    ],
)  # fmt: skip
def test_days_and_times(admits, name, right, wrong):
    for schema in ({"type": "string", "format": name}, {"anyOf": [{"format": name}]}):
        assert all(admits({"guided_json": schema}, f'"{text}"') for text in right)
        assert not any(admits({"guided_json": schema}, f'"{text}"') for text in wrong)


def test_a_format_joins_what_stands_beside_it(admits):
    dates = {"guided_json": {"format": "date", "enum": ["2023-02-28", "2023-02-29", 5]}}
    assert [admits(dates, text) for text in ('"2023-02-28"', '"2023-02-29"', "5")] == [True, False, True]
    leap = {"guided_json": {"type": "string", "format": "date", "pattern": "^20.*-29$", "maxLength": 10}}
    found = [admits(leap, f'"{text}"') for text in ("2024-02-29", "2023-02-29", "2023-01-29", "2024-02-28")]
    assert found == [True, False, True, False]


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        *(({"const": value}, "#/const") for value in (2**63, -(2**63), 2**64 - 1, 10**20, 2**53 + 1, 2**63 - 1, 1e300)),
        ({"enum": [1, {"a": [10**20]}]}, "#/enum"),
        ({"properties": {"a": {"type": "integer", "minimum": 2**63}}}, "#/properties/a/minimum"),
        ({"$defs": {"b": {"maximum": -(2**63) - 1}}, "items": {"$ref": "#/$defs/b"}}, "#/$defs/b/maximum"),
        ({"anyOf": [TEXT, {"type": "number", "exclusiveMaximum": 1e22}]}, "#/anyOf/1/exclusiveMaximum"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.3}, "#: exclusiveMinimum 0 is not served with a limit"),
        ({"exclusiveMaximum": -1, "minimum": -1.5}, "#: exclusiveMaximum -1 is not served with a limit"),
        ({"minimum": 1, "exclusiveMinimum": True, "maximum": 1.5}, "#: exclusiveMinimum 1 is not served"),
        ({"allOf": [{"exclusiveMinimum": 0}, {"maximum": 0.3}]}, "#/allOf/0: exclusiveMinimum 0 is not served"),
        ({"type": "integer", "minimum": 2**53 + 1}, "#/minimum"),
        ({"type": "integer", "multipleOf": 123456789}, "#: multipleOf 123456789"),
        ({"type": "integer", "multipleOf": 10**9}, "#: multipleOf"),
        ({"type": "integer", "multipleOf": -3}, "#: multipleOf must be above 0"),
        ({"allOf": [{"multipleOf": 65537}, {"multipleOf": 65539}]}, "common multiple"),
        ({"format": "uri-reference"}, "#: format 'uri-reference' is not served"),
        ({"type": "string", "format": "unknown"}, "#: format 'unknown' is not served"),
        ({"type": "integer", "format": "int32"}, "#: format 'int32' is not served"),
        ({"minProperties": 2}, "#: minProperties 2"),
        ({"properties": {"a": {"minlength": 3}}}, "#/properties/a: unknown 'minlength'; did you mean 'minLength'?"),
        ({"$ref": "http://a.b/c"}, "#: $ref 'http://a.b/c' is outside of the schema"),
        ({"items": {"$id": "http://a.b/c"}}, "#/items: $id is served at the root alone"),
        *(({"items": {name: value}}, f"#/items: {name} is not served") for name, value in {
            "not": TEXT, "if": TEXT, "contains": INTEGER, "uniqueItems": True, "dependencies": {"a": ["b"]},
            "dependentRequired": {"a": ["b"]}, "dependentSchemas": {"a": {}}, "propertyNames": TEXT,
            "unevaluatedItems": False, "unevaluatedProperties": False, "divisibleBy": 2, "disallow": "string",
            "extends": {}, "$dynamicRef": "#a",
        }.items()),
        ({"oneOf": [INTEGER, {"type": "number"}]}, "use anyOf"),
        ({"type": "string", "format": "date", "maxLength": 3}, "no text has the pattern, format and length"),
        (False, "false is a schema that nothing satisfies"),
        ('{"type": "string", "type": "integer"}', "type stands there more than once"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_where_it_stands(compiler, schema, place):
    with pytest.raises(RequestError) as raised:
        compiler.start(read_guide(guided_json=schema))
    assert place in str(raised.value) and "guided_json" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    ],
)
def test_a_reference_without_an_end_is_called_that(compiler, schema):
    with pytest.raises(RequestError, match=r"\$ref '#.*' leads back to itself without an end"):
        compiler.start(read_guide(guided_json=schema))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (True, ["1", '"a"', '{"a": [null]}'], ["a"]),
        ("true", ["1", '"a"'], ["a"]),
        ({"type": "object", "properties": {"next": {"$ref": "#"}}}, ['{"next": {}}', "{}"], ['{"next": 1}']),
        ({"anyOf": [INTEGER, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]}, ["[[1]]"], ["[[]]"]),
        ({"properties": {"not": TEXT, "if": INTEGER}}, ['{"not": "a", "if": 1}'], ['{"not": 1}']),
        ({"const": {"not": 1}}, ['{"not": 1}'], ['{"not": 2}']),
        ({"$defs": {"unused": {"not": {}}}, "type": "integer"}, ["1"], ['"a"']),
        ({"type": "array", "uniqueItems": False}, ["[1, 1]"], ["1"]),
        ({"type": "integer", "minimum": -5, "maximum": 2**53}, ["-5", str(2**53)], ["-6", str(2**53 + 1)]),
        ({"type": "integer", "maximum": 2**63 - 1}, [str(2**63 - 1)], [str(2**63)]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0.3", "1"], ["0", "0.0", "-0.0", "1.01"]),
        ({"type": "number", "minimum": 0, "maximum": 0.3}, ["0.3", "0.05", "0"], ["-0.1", "0.31", "1"]),
        ({"type": "number", "multipleOf": 0.01}, ["1.5", "0.35"], ["0.015"]),
        ({"enum": [0.5, 1e-7, 2**62]}, ["0.5", "0.0000001", str(2**62)], ["0.50000001", str(2**62 + 1)]),
        ({"x-note": 1, "example": 2, "title": "t", "nullable": True, "type": "integer"}, ["1"], ['"a"']),
        ({"minProperties": 2, "required": ["a", "b"]}, ['{"a": 1, "b": 2}'], ['{"a": 1, "a": 2}']),
        ({"$defs": {"i": {"$anchor": "k", **INTEGER}}, "$ref": "#k", "minimum": 3}, ["3"], ["2", '"a"']),
        ({"$id": "http://a.b/c", "$defs": {"a/b": INTEGER}, "$ref": "http://a.b/c#/$defs/a~1b"}, ["3"], ['"a"']),
    ],
)
def test_what_is_served(admits, schema, right, wrong):
    assert [text for text in right if not admits({"guided_json": schema}, text)] == []
    assert [text for text in wrong if admits({"guided_json": schema}, text)] == []


@pytest.mark.parametrize(
    "grammar",
    [
        '?start: "a"', '!start: "a"', 'start: "a"', '# ::=\n?start: x\n?x: "a"', "start[max_tokens=5]: /a/",
        'root ::= "a"', '# start: "b"\nroot ::= "a"', 'root::= "a"', 'start: x | "::="\nx: "a"',
        'start: %json {"const": 1} | "a"',
    ],
)  # fmt: skip
def test_grammars_of_both_kinds(admits, grammar):
    assert admits({"guided_grammar": grammar}, "a") and not admits({"guided_grammar": grammar}, "b")


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("?start: (", r"guided_grammar \(read as Lark, for it has no rule with ::=\) is refused: .*Expected token"),
        ("start: missing", "read as Lark.*missing"),
        ("root ::= (", r"guided_grammar \(read as GBNF, for it has rules with ::=\) is refused: Expected '\)'"),
        ('a ::= "a"', "read as GBNF.*No 'root' rule"),
        ("root ::= " + "(" * 5000, "read as GBNF.*nested too deeply"),
        ("start: start", "read as Lark.*a rule or a \\$ref needs itself"),
        ('start: %json {"const": -9223372036854775808}', "%json of guided_grammar is refused: at #/const"),
        ('{"grammars": []}', "it is JSON, no grammar"),
    ],
)
def test_a_bad_grammar_says_as_what_it_was_read(compiler, grammar, message):
    with pytest.raises(RequestError, match=message) as raised:
        compiler.start(read_guide(guided_grammar=grammar))
    assert "NoExtension" not in str(raised.value) and len(str(raised.value)) < 500


def test_every_date_that_is_sampled_is_a_day(tokenizer, compiler):
    for seed in range(30):
        matcher = compiler.start(read_guide(guided_json={"type": "string", "format": "date"}))
        mask, chooser, ids = np.zeros(-(-tokenizer.vocab_size // 32), np.uint32), random.Random(seed), []
        while not matcher.may_end:
            matcher.fill_mask(mask)
            ids.append(chooser.choice(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()))
            assert matcher.accept(ids[-1])
        datetime.date.fromisoformat(json.loads(tokenizer.decode(ids)))


def test_bad_guides_leave_the_others_alone():
    llm = LLM("demo", dtype="float32")
    (alone,) = llm.generate(PROMPT, GREEDY)
    schemas = {"const": -(2**63)}, {"$ref": "#"}, False
    guides = [{"guided_json": schema} for schema in schemas]
    guides += [{"guided_grammar": "?start: ("}, {"guided_grammar": "root ::= root"}, {"guided_regex": r"[^\s\S]"}]
    bad = [SamplingParams(temperature=0, max_tokens=8, **guide) for guide in guides]
    outputs = llm.generate([PROMPT] * 8, [GREEDY, *bad, GREEDY])
    assert outputs[0].outputs == outputs[-1].outputs == alone.outputs
    assert all("is refused: " in output.error and output.outputs == [] for output in outputs[1:-1])
