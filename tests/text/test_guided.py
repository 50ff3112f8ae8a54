"""Guided output: whatever is sampled from the masks is right, and what is right is never masked."""

import json
import random
import re
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from tiny_tokenizers import make_tokenizer

from mindgen.engine.guide import num_mask_words
from mindgen.errors import RequestError
from mindgen.store import embedded
from mindgen.text.guided import GuidedCompiler, GuidedMatcher, read_guide
from mindgen.text.tokenizer import load_tokenizer

EOS_IDS = (2, 0)  # Llama 3 has several as well
LONGEST_WALK = 600


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int = Field(ge=0, le=30)
    state: Literal["new", "gebraucht", "北京 🙂", 'say "hi"']


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=6)
    items: list[Item] = Field(max_length=3)
    note: str | None = Field(default=None, max_length=4)
    weight: float


@pytest.fixture(scope="module", params=["demo", "sentencepiece_unigram", "byte_level_bpe", "byte_fallback_bpe"])
def tokenizer(request, tmp_path_factory):
    if request.param == "demo":
        return load_tokenizer(embedded.demo_folder())
    return load_tokenizer(make_tokenizer(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return GuidedCompiler(tokenizer, vocab_size(tokenizer), EOS_IDS)


def vocab_size(tokenizer) -> int:
    """As if the model's embedding were padded, and its size no multiple of 32."""
    return tokenizer.vocab_size + 45


def test_a_model_without_end_tokens(tokenizer):
    with pytest.raises(RequestError, match="needs an end token, and config.json names none"):
        GuidedCompiler(tokenizer, vocab_size(tokenizer), ())


def allowed(matcher: GuidedMatcher, size: int) -> list[int]:
    mask = np.full(num_mask_words(size), -1, np.int32)
    matcher.fill_mask(mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    assert not bits[size:].any()
    return np.flatnonzero(bits).tolist()


def walk(tokenizer, matcher: GuidedMatcher, chooser: random.Random) -> tuple[str, bool]:
    """The text of random tokens that the masks allow, and whether it came to its end."""
    ids: list[int] = []
    size = vocab_size(tokenizer)
    while len(ids) < LONGEST_WALK:
        choices = allowed(matcher, size)
        assert choices, "a mask allows nothing"
        assert matcher.may_end == any(token_id in EOS_IDS for token_id in choices)
        token_id = chooser.choice(choices)
        assert matcher.accept(token_id)
        if token_id in EOS_IDS:
            assert matcher.is_finished
            break
        assert token_id not in tokenizer.special_ids and tokenizer.token_bytes(token_id)
        ids.append(token_id)
    data = b"".join(map(tokenizer.token_bytes, ids))
    if not matcher.may_end:
        return data.decode(errors="ignore"), False
    return data.decode(), True


def walks(tokenizer, compiler, count: int, **guide) -> list[str]:
    """Random outputs that came to their end, which most should."""
    results = [walk(tokenizer, compiler.start(read_guide(**guide)), random.Random(seed)) for seed in range(count)]
    ended = [text for text, has_ended in results if has_ended]
    assert len(ended) >= count // 2
    return ended


@pytest.mark.parametrize("form", ["model", "dict", "text"])
def test_json_follows_its_schema(tokenizer, compiler, form):
    schema = Order.model_json_schema()
    guide = {"model": Order, "dict": schema, "text": json.dumps(schema)}[form]
    for text in walks(tokenizer, compiler, 12, guided_json=guide):
        Order.model_validate_json(text)


def test_any_json(tokenizer, compiler):
    schema = {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string", "maxLength": 3}}
    for text in walks(tokenizer, compiler, 10, guided_json=schema):
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "regex",
    [
        r"[a-z]{2,5}@[a-z]{2}\.(com|org)",
        r"[0-9]{4}-(0[1-9]|1[0-2])",
        "[一-龥]{1,4}。",
        "🙂|👩‍👩‍👧{2}",
        "(ab|c)*d?",
        "[^a]{3}",
    ],
)
def test_regex_matches_whole(tokenizer, compiler, regex):
    for text in walks(tokenizer, compiler, 20, guided_regex=regex):
        assert re.fullmatch(regex, text, re.DOTALL), text


def test_choice_ends_exactly(tokenizer, compiler):
    choices = ["yes", "yes, sir", "no", 'say "hi"\n\t\\', "北京 🙂", "/x/", "a|b"]
    texts = set(walks(tokenizer, compiler, 80, guided_choice=choices))
    assert texts == set(choices)
    matcher = compiler.start(read_guide(guided_choice=["北京"]))
    for token_id in tokenizer.encode_fragment("北京"):
        assert not matcher.is_finished
        assert matcher.accept(token_id)
    assert matcher.is_finished and matcher.may_end
    assert allowed(matcher, vocab_size(tokenizer)) == sorted(EOS_IDS)
    assert not matcher.accept(tokenizer.encode_fragment("a")[0])
    assert matcher.accept(EOS_IDS[1]) and not matcher.accept(EOS_IDS[0])


@pytest.mark.parametrize(
    "grammar",
    [
        'start: expr\nexpr: NUMBER | "(" expr OP expr ")"\nNUMBER: /[0-9]{1,3}/\nOP: "+" | "*"',
        'root ::= expr\nexpr ::= [0-9] [0-9]? | "(" expr [+*] expr ")"',
    ],
)
def test_grammar(tokenizer, compiler, grammar):
    for text in walks(tokenizer, compiler, 20, guided_grammar=grammar):
        eval(re.sub(r"\b0+(?=\d)", "", text))


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x7f"), max_size=15))
def test_every_unicode_text_may_stand_in_a_json_string(tokenizer, compiler, text):
    matcher = compiler.start(read_guide(guided_json={"type": "string"}))
    written = json.dumps(text, ensure_ascii=False)
    if "▁" in text:  # which sentencepiece writes for a space
        return
    for token_id in tokenizer.encode_fragment(written):
        assert token_id in allowed(matcher, vocab_size(tokenizer))
        assert matcher.accept(token_id)
    assert matcher.may_end


@pytest.mark.parametrize(
    ("written", "is_right"),
    [(r"\u4e2d\u00e9", True), (r"\ud83d\ude42", True), (r"\ud83d", False), (r"\ude42x", False), (r"\x41", False)],
)
def test_escapes_in_json_strings(tokenizer, compiler, written, is_right):
    """Half a surrogate pair is no text."""
    matcher = compiler.start(read_guide(guided_json={"type": "string", "maxLength": 2}))
    accepted = all(matcher.accept(token_id) for token_id in tokenizer.encode_fragment(f'"{written}"'))
    assert (accepted and matcher.may_end) == is_right


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_rollback_and_copies_go_back_to_the_same_masks(tokenizer, compiler, data, seed):
    guide = read_guide(**data.draw(st.sampled_from([{"guided_json": Order}, {"guided_choice": ["yes", "yes, sir"]}])))
    matcher, chooser, size = compiler.start(guide), random.Random(seed), vocab_size(tokenizer)
    masks, copies = [allowed(matcher, size)], [matcher.copy()]
    taken: list[int] = []
    for _ in range(data.draw(st.integers(1, 25))):
        token_id = chooser.choice(masks[-1])
        assert matcher.accept(token_id)
        taken.append(token_id)
        masks.append(allowed(matcher, size))
        copies.append(matcher.copy())
        if token_id in EOS_IDS:
            break
    count = data.draw(st.integers(0, len(taken)))
    matcher.rollback(count)
    place = len(taken) - count
    assert allowed(matcher, size) == allowed(copies[place], size) == masks[place]
    for token_id, mask in zip(taken[place:], masks[place + 1 :], strict=True):
        assert matcher.accept(token_id)
        assert allowed(matcher, size) == mask


def test_a_refused_token_changes_nothing(tokenizer, compiler):
    matcher = compiler.start(read_guide(guided_regex="[0-9]+x"))
    before = allowed(matcher, vocab_size(tokenizer))
    for refused in (*EOS_IDS, tokenizer.encode_fragment("z")[0], tokenizer.vocab_size + 7):
        assert not matcher.accept(refused)
    assert allowed(matcher, vocab_size(tokenizer)) == before and not matcher.is_finished
    assert matcher.accept(before[0])


def test_a_guide_is_compiled_once(compiler, monkeypatch):
    guide = read_guide(guided_regex="only once [0-9]")
    compiler.start(guide)
    monkeypatch.setattr(GuidedCompiler, "_compile", lambda *_: pytest.fail("compiled again"))
    compiler.start(read_guide(guided_regex="only once [0-9]"))


@pytest.mark.parametrize(
    ("guide", "reason"),
    [
        ({"guided_regex": "(a"}, "unclosed group"),
        ({"guided_regex": "(?=a)b"}, "look-around"),
        ({"guided_regex": ""}, "must be a text"),
        ({"guided_json": {"type": "foo"}}, "foo"),
        ({"guided_json": {"$ref": "#/nope"}}, "nope"),
        ({"guided_json": '{"a"'}, "not a JSON schema"),
        ({"guided_json": "[1]"}, "must be a schema"),
        ({"guided_json": {"type": {1, 2}}}, "not a JSON schema"),
        ({"guided_grammar": "start: missing"}, "missing"),
        ({"guided_grammar": "root ::= missing"}, "missing"),
        ({"guided_choice": []}, "at least one"),
        ({"guided_choice": "abc"}, "at least one"),
        ({"guided_choice": ["\ud800"]}, "surrogate"),
        ({"guided_choice": ["a"], "guided_regex": "a"}, "one guide at most"),
    ],
)
def test_bad_guides_are_refused_with_the_reason(compiler, guide, reason):
    with pytest.raises(RequestError, match=reason):
        compiler.start(read_guide(**guide))


def test_no_guide():
    assert read_guide() is None
