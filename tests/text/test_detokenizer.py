"""Detokenizing token by token: whole characters, exact text, a constant cost."""

import time

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import KINDS, TEXT, make_tokenizer

from mindgen.text.detokenizer import IncrementalDetokenizer
from mindgen.text.tokenizer import load_tokenizer

HARD_TEXT = st.text(st.sampled_from("ab ,\n北京龘🙂👩\u200d👧🏽🇨🇳\ufe0fé▁e\u0301"), max_size=25)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    return load_tokenizer(make_tokenizer(request.param, tmp_path_factory.mktemp(request.param)))


def chunks_of(tokenizer, prompt_ids: list[int], output_ids: list[int], skip: bool = True) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, prompt_ids, skip)
    return [detokenizer.append([token_id]) for token_id in output_ids] + [detokenizer.flush()]


@settings(max_examples=200, deadline=None)
@given(text=HARD_TEXT | st.text(max_size=20), data=st.data())
def test_chunks_join_to_the_text_and_never_break_a_character(tokenizer, text, data):
    """Wherever the prompt ends, be it inside a character."""
    ids = tokenizer.encode(text)
    whole = tokenizer.decode(ids)
    cut = data.draw(st.integers(0, len(ids)))
    chunks = chunks_of(tokenizer, ids[:cut], ids[cut:])
    assert not any("\ufffd" in chunk for chunk in chunks) or "\ufffd" in text
    assert whole.endswith("".join(chunks))
    prompt = tokenizer.decode(ids[:cut]).rstrip("\ufffd")
    assert "\ufffd" in text or prompt + "".join(chunks) == whole


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, 340), max_size=40), skip=st.booleans())
def test_any_tokens_give_the_text_that_follows_the_prompt(tokenizer, ids, skip):
    """Also byte tokens that make no valid character, special tokens, and ids without a token."""
    prompt_ids = tokenizer.encode("Hello world")
    joined = "".join(chunks_of(tokenizer, prompt_ids, ids, skip))
    assert tokenizer.decode(prompt_ids, skip) + joined == tokenizer.decode(prompt_ids + ids, skip)
    assert "".join(chunks_of(tokenizer, [], ids, skip)) == tokenizer.decode(ids, skip)


@pytest.fixture(scope="module")
def normalizing(tmp_path_factory):
    """A sentencepiece model as its trainer makes it by default, which drops all spaces at the beginning of a text."""
    folder = tmp_path_factory.mktemp("normalizing")
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT), model_prefix=str(folder / "tokenizer"), vocab_size=90, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    return load_tokenizer(folder), sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_all_spaces_at_the_beginning_may_be_dropped(normalizing, data):
    """As sentencepiece has it, but for <unk>, 0, which is a special token here as in transformers."""
    tokenizer, processor = normalizing
    space = processor.PieceToId("▁")
    ids = data.draw(st.lists(st.just(space) | st.integers(1, tokenizer.vocab_size - 1), max_size=12))
    assert tokenizer.decode(ids) == processor.DecodeIds(ids)
    cut = data.draw(st.integers(0, len(ids)))
    assert tokenizer.decode(ids[:cut]) + "".join(chunks_of(tokenizer, ids[:cut], ids[cut:])) == tokenizer.decode(ids)


def test_a_space_begins_the_answer_but_not_a_text(tokenizer):
    ids = tokenizer.encode_fragment(" world")
    assert "".join(chunks_of(tokenizer, tokenizer.encode("Hello"), ids)) == " world"
    begin = "world" if tokenizer.num_leading_spaces_dropped else " world"
    assert "".join(chunks_of(tokenizer, [tokenizer.bos_id], ids)) == begin


def test_whole_characters_do_not_wait(tokenizer):
    """Not for what comes behind them: every chunk with the last byte of a character gives that character."""
    for text in ("北京", "🙂🚀", "a🙂b"):
        for token_id, chunk in zip(ids := tokenizer.encode_fragment(text), chunks_of(tokenizer, [], ids), strict=False):
            last = tokenizer.token_bytes(token_id)
            following = ids[ids.index(token_id) + 1 :]
            ends_character = not following or tokenizer.token_bytes(following[0])[0] & 0xC0 != 0x80
            assert bool(chunk) == ends_character or last == b""


def test_long_runs_of_broken_bytes_cost_no_more_than_text(tokenizer):
    broken = next(token for token in range(tokenizer.vocab_size) if tokenizer.token_bytes(token) == b"\xbf")
    detokenizer = IncrementalDetokenizer(tokenizer, tokenizer.encode("Hello"))
    started = time.thread_time()
    texts = [detokenizer.append([broken]) for _ in range(20_000)]
    assert time.thread_time() - started < 1.0  # a cost that grew with the run would take minutes
    assert "".join(texts) == "\ufffd" * 20_000
