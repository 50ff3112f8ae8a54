"""Grammars that people write: in Lark's form, or in the GBNF of llama.cpp."""

import json
import re

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark

from mindgen.errors import RequestError
from mindgen.text.guided_schema import check_schema

_GBNF_RULE = re.compile(r"(?m)^[ \t]*[A-Za-z_][\w-]*[ \t]*::=")
# Lark's marks of rules, for its trees and its priorities, which change nothing about the texts.
_RULE_MARK = re.compile(r"(?m)^([ \t]*)[?!]+(?=[a-z_]\w*[ \t]*(\[.*\])?[ \t]*:)")
_SCHEMA = re.compile(r"%json\s*(?=\{)")


def is_gbnf(text: str) -> bool:
    return _GBNF_RULE.search(text) is not None


def lark_grammar(text: str) -> str:
    """The compiler's form of a grammar in either form.

    Raises:
        ValueError: it is malformed.
        RequestError: a schema within it is not served.
    """
    if text.lstrip().startswith("{"):
        raise ValueError("it is JSON, no grammar: guided_json takes schemas")
    if not is_gbnf(text):
        return LLMatcher.grammar_from_lark(_with_checked_schemas(_RULE_MARK.sub(r"\1", text)))
    try:
        return LLMatcher.grammar_from_lark(gbnf_to_lark(text))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except Exception as error:  # of many classes, of which some are Exception itself
        raise ValueError(str(error)) from error


def _with_checked_schemas(text: str) -> str:
    """A Lark grammar whose %json have been checked like guided_json."""
    parts, end = [], 0
    for match in _SCHEMA.finditer(text):
        if match.start() < end:
            continue
        try:
            schema, after = json.JSONDecoder().raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue  # the compiler says what is wrong with it
        try:
            checked = json.dumps(check_schema(schema), ensure_ascii=False)
        except RequestError as error:
            raise RequestError(str(error).replace("guided_json", "%json of guided_grammar", 1)) from error
        parts += [text[end : match.end()], checked]
        end = after
    return "".join([*parts, text[end:]])
