"""Hydra's command lines, with the examples of its documentation."""

import pytest

from mindgen.compat.hydra_overrides import Override, parse_override
from mindgen.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.path=a.parquet", Override("set", "data.path", "a.parquet")),
        ("+model.trust_remote_code=True", Override("add", "model.trust_remote_code", True)),
        ("++rollout.load_format=auto", Override("force", "rollout.load_format", "auto")),
        ("~rollout.top_k", Override("remove", "rollout.top_k", has_value=False)),
        ("~rollout.top_k=50", Override("remove", "rollout.top_k", 50)),
        ("a.b-c.d_1=x", Override("set", "a.b-c.d_1", "x")),
    ],
)
def test_what_is_done_to_a_key(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("null", None),
        ("Null", None),
        ("true", True),
        ("FALSE", False),
        ("10", 10),
        ("-1", -1),
        ("+7", 7),
        ("1_000", 1000),
        ("007", "007"),
        ("1.0", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-inf", float("-inf")),
        ("hello", "hello"),
        ("hello world", "hello world"),
        ("  padded  ", "padded"),
        ("/data-1/x.parquet", "/data-1/x.parquet"),
        ("~/data/*.parquet", "~/data/*.parquet"),
        ("50%", "50%"),
        ("a=b", "a=b"),
        ("数据/提示.parquet", "数据/提示.parquet"),
        ("http://host:80/x?a=1", "http://host:80/x?a=1"),
        ("'10'", "10"),
        ('"null"', "null"),
        ("'a, b'", "a, b"),
        ("' kept '", " kept "),
        (r"'it\'s'", "it's"),
        (r'"say \"no\""', 'say "no"'),
        ('"it\'s"', "it's"),
        (r"'ends with a \\'", "ends with a \\"),
        (r"'C:\dir\new'", r"C:\dir\new"),
        (r"'a\\nb'", r"a\\nb"),
        ("'{not: a dict}'", "{not: a dict}"),
        (r"a\,b", "a,b"),
        (r"\[x\]", "[x]"),
        (r"dir\name", r"dir\name"),
        (r"a\  ", "a "),
        (r"\10", r"\10"),
        ("[]", []),
        ("[a, b,c ]", ["a", "b", "c"]),
        ("[1, -2.5, null, true, 'x,y']", [1, -2.5, None, True, "x,y"]),
        ("[[1, 2], [], {a: [3]}]", [[1, 2], [], {"a": [3]}]),
        ("{}", {}),
        ("{a: 1, b: {c: x y}, 'd e': [1]}", {"a": 1, "b": {"c": "x y"}, "d e": [1]}),
        ("{enable_thinking: False}", {"enable_thinking": False}),
        ("{5: 1.5}", {5: 1.5}),
        ("{time: '10:30'}", {"time": "10:30"}),
    ],
)
def test_values(text, expected):
    value = parse_override(f"key={text}").value
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.path", "'data.path' is no setting: expected key=value"),
        (" ", "nothing may stand behind the \\ at a line's end"),
        ("=x", "a key is names with dots between"),
        ("a..b=1", "not 'a..b'"),
        ("db@backup=mysql", "there are no config groups"),
        ("hydra/launcher=ray", "there are no config groups"),
        ("a=b,c", "several values make a sweep: write [b,c] for a list"),
        ("a='b','c'", "several values make a sweep"),
        ("a=${oc.env:HOME}/x", "${oc.env:HOME} is not resolved"),
        ("a='${data.path}'", "${data.path} is not resolved"),
        ("a=[${x}]", "${x} is not resolved"),
        ("a=range(1,5)", "( must be quoted"),
        ("a=file(1).parquet", "( must be quoted"),
        ("a=[b", "expected , or ] at ''"),
        ("a=[b]c", "'c' follows what is whole"),
        ("a=[b,]", "a value is missing"),
        ("a=[,]", "a value is missing"),
        ("a={b}", "expected : or }"),
        ("a={b:1", "expected , or } at ''"),
        ("a='b", "the text that begins with ' has no end"),
        ("a='b'c", "'c' follows a quoted text"),
        ("a=it's", "' must be quoted"),
        ("a=" + "[" * 40, "nested more than 32 deep"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(UsageError) as raised:
        parse_override(text)
    assert message in str(raised.value) and "\n" not in str(raised.value)
