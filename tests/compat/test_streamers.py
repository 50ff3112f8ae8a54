"""Streamers: the joined text is the decoded one, in every way of putting tokens in and taking text out."""

import asyncio
import queue
import threading

import mindspore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import make_tokenizer

from mindgen.compat.streamers import AsyncTextIteratorStreamer, TextIteratorStreamer, TextStreamer
from mindgen.errors import RequestError
from mindgen.text.tokenizer import load_tokenizer

PROMPT, ANSWER = "Hello world,", " 我爱北京 🙂 and two\n"
FORMS = {
    "lists": list, "rows": lambda ids: [ids], "arrays": np.array, "array rows": lambda ids: np.array([ids]),
    "tensors": mindspore.Tensor, "one by one": lambda ids: ids[0] if len(ids) == 1 else ids,
}  # fmt: skip


@pytest.fixture(scope="module", params=["sentencepiece_bpe", "byte_level_bpe", "byte_fallback_unigram"])
def tokenizer(request, tmp_path_factory):
    return load_tokenizer(make_tokenizer(request.param, tmp_path_factory.mktemp(request.param)))


def feed(streamer, tokenizer, form=list) -> None:
    prompt_ids = tokenizer.encode(PROMPT)
    streamer.put(form(prompt_ids))
    for token_id in tokenizer.encode(PROMPT + ANSWER)[len(prompt_ids) :]:
        streamer.put(form([token_id]))
    streamer.end()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("skip_prompt", [False, True])
def test_printed_text_is_exact(tokenizer, capsys, skip_prompt, form):
    streamer = TextStreamer(tokenizer, skip_prompt)
    for _ in range(2):  # it may be used again
        feed(streamer, tokenizer, FORMS[form])
        assert capsys.readouterr().out == ("" if skip_prompt else PROMPT) + ANSWER + "\n"


def test_special_tokens_are_shown_if_asked(tokenizer):
    texts: list[str] = []
    feed(TextStreamer(tokenizer, skip_special_tokens=False, callback=texts.append), tokenizer)
    assert "".join(texts) == "<s>" + tokenizer.decode(tokenizer.encode(PROMPT + ANSWER), False).removeprefix("<s>")


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(3, 300), min_size=1, max_size=20), data=st.data())
def test_any_tokens_in_any_portions(tokenizer, ids, data):
    texts: list[str] = []
    streamer = TextStreamer(tokenizer, callback=texts.append)
    num_given = 0
    while num_given < len(ids):
        count = data.draw(st.integers(1, len(ids) - num_given))
        streamer.put(ids[num_given : num_given + count])
        num_given += count
    streamer.end()
    assert "".join(texts) == tokenizer.decode(ids)


def test_rows_of_a_batch_stream_side_by_side(tokenizer):
    texts: list[list[str]] = []
    streamer = TextStreamer(tokenizer, skip_prompt=True, callback=texts.append)
    answers = [tokenizer.encode_fragment(text) for text in (" 北京", " two")]
    length = max(map(len, answers))
    streamer.put([tokenizer.encode("Hello"), tokenizer.encode("world")])
    padded = [ids + [tokenizer.eos_id] * (length - len(ids)) for ids in answers]
    for column in np.array(padded).T:
        streamer.put(column[:, None])
    streamer.end()
    assert ["".join(row) for row in zip(*texts, strict=True)] == [" 北京", " two"]
    with pytest.raises(ValueError, match="2 rows got 1"):
        streamer.put([[1], [2]])
        streamer.put([1])


def test_iterator_in_another_thread(tokenizer):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=10)
    for _ in range(2):
        thread = threading.Thread(target=feed, args=(streamer, tokenizer))
        thread.start()
        assert "".join(streamer) == ANSWER
        thread.join()


def test_iterators_do_not_wait_for_ever(tokenizer):
    with pytest.raises(queue.Empty):
        next(TextIteratorStreamer(tokenizer, timeout=0.01))

    async def wait() -> None:
        await anext(AsyncTextIteratorStreamer(tokenizer, timeout=0.01))

    with pytest.raises(TimeoutError):
        asyncio.run(wait())


def test_async_iterator(tokenizer):
    async def collect() -> list[str]:
        streamer = AsyncTextIteratorStreamer(tokenizer, skip_prompt=True, timeout=10)
        thread = threading.Thread(target=feed, args=(streamer, tokenizer))
        thread.start()
        texts = [text async for text in streamer]
        thread.join()
        return texts

    texts = asyncio.run(collect())
    assert "".join(texts) == ANSWER and not any("\ufffd" in text for text in texts)


def test_what_would_change_text_later_is_refused(tokenizer):
    TextStreamer(tokenizer, clean_up_tokenization_spaces=False)
    with pytest.raises(RequestError, match="clean_up_tokenization_spaces"):
        TextIteratorStreamer(tokenizer, clean_up_tokenization_spaces=True)
