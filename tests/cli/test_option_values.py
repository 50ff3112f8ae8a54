"""Values of options from what was typed."""

import pytest

from mindgen.cli.option_values import is_boolean, is_list, parse_value, read_text_or_file
from mindgen.compat.option_aliases import sampling_options
from mindgen.errors import UsageError

KINDS = {name: option.kind for name, option in sampling_options().items()}


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [
        ("top_k", ["5"], 5),
        ("temperature", ["1"], 1.0),
        ("ignore_eos", ["yes"], True),
        ("early_stopping", ["never"], "never"),
        ("early_stopping", ["False"], False),
        ("new_token_limit", ["1"], 1),
        ("new_token_limit", ["true"], True),
        ("stop", ["a", "b c"], ["a", "b c"]),
        ("stop", ['["a", ";"]'], ["a", ";"]),
        ("stop", ["[1]"], ["[1]"]),
        ("stop", ["[end"], ["[end"]),
        ("stop_token_ids", ["[1, 2]"], [1, 2]),
        ("stop_token_ids", ["3", "4"], [3, 4]),
        ("logit_bias", ['{"5": 1.5}'], {5: 1.5}),
        ("guided_json", ['{"type": "object"}'], {"type": "object"}),
        ("guided_choice", ["yes", "no"], ["yes", "no"]),
        ("guided_regex", ["[0-9]+"], "[0-9]+"),
        ("seed", ["none"], None),
        ("seed", ["-1"], -1),
    ],
)
def test_values(name, typed, expected):
    value = parse_value(name, KINDS[name], typed)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [
        ("top_k", "1.5", "top_k cannot be '1.5': expected an integer"),
        ("temperature", "hot", "temperature cannot be 'hot': expected a number"),
        ("ignore_eos", "maybe", "expected True or False"),
        ("early_stopping", "always", "expected True or False or 'never'"),
        ("stop_token_ids", "a", "expected a list of integers"),
        ("logit_bias", "[1]", 'expected a JSON object like {"5": 1.5}'),
        ("logit_bias", '{"a": 1}', "expected a JSON object"),
        ("guided_json", "object", "expected a JSON object"),
    ],
)
def test_refusals(name, typed, expected):
    with pytest.raises(UsageError) as raised:
        parse_value(name, KINDS[name], [typed])
    assert expected in str(raised.value)


def test_kinds():
    lists = {name for name, kind in KINDS.items() if is_list(kind)}
    assert lists == {"stop", "stop_token_ids", "bad_words", "allowed_token_ids", "forced_token_ids", "guided_choice"}
    assert is_boolean(KINDS["new_token_limit"]) and not is_boolean(KINDS["seed"])
    assert all(option.description for option in sampling_options().values())


def test_texts_from_files(tmp_path):
    (tmp_path / "grammar").write_text("北京", encoding="utf-8")
    assert read_text_or_file("x", f"@{tmp_path}/grammar") == "北京"
    assert read_text_or_file("x", "root ::= a") == "root ::= a"
    with pytest.raises(UsageError, match="x: cannot read nowhere"):
        read_text_or_file("x", "@nowhere")
