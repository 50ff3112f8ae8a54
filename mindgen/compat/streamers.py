"""Streamers, with the interface of Hugging Face's and MindFormers': `generate` puts tokens in, text comes out.

Text is given out as soon as its characters are whole, and the pieces joined are exactly the decoded text.
"""

import asyncio
import queue
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from mindgen.errors import RequestError
from mindgen.text.detokenizer import IncrementalDetokenizer
from mindgen.text.tokenizer import Tokenizer

# One text, or one for each row of a batch.
Text = str | list[str]


class BaseStreamer(ABC):
    """What `generate` asks of a streamer."""

    @abstractmethod
    def put(self, value: Any) -> None:
        """Takes the prompt's tokens, in the first call, then generated ones.

        Args:
            value: an id, ids (T,) or a batch (B, T), as numbers, lists, arrays or tensors.
        """

    @abstractmethod
    def end(self) -> None:
        """Generation is over; the streamer may be used again."""


class TextStreamer(BaseStreamer):
    """Prints text as it comes, or hands it to a callback.

    Args:
        skip_prompt: leave the prompt out; what follows it is then the text of the tokens behind the prompt, so a
            space that belongs to it stays.
        callback: called with each new text instead of printing it.
        decode_kwargs: Hugging Face's; clean_up_tokenization_spaces has to be false, for it would change text that is
            out already.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_prompt: bool = False,
        skip_special_tokens: bool = True,
        callback: Callable[[Text], None] | None = None,
        **decode_kwargs: Any,
    ) -> None:
        refused = {name for name, value in decode_kwargs.items() if name != "clean_up_tokenization_spaces" or value}
        if refused:
            raise RequestError(f"a streamer cannot decode with {', '.join(sorted(refused))}")
        self._tokenizer = tokenizer
        self._skip_prompt = skip_prompt
        self._skip_special_tokens = skip_special_tokens
        self._callback = callback
        self._rows: list[IncrementalDetokenizer] = []

    def put(self, value: Any) -> None:
        rows, is_batch = _rows(value)
        if not self._rows:
            prompts = rows if self._skip_prompt else [[] for _ in rows]
            self._rows = [IncrementalDetokenizer(self._tokenizer, ids, self._skip_special_tokens) for ids in prompts]
            if self._skip_prompt:
                return
        if len(rows) != len(self._rows):
            raise ValueError(f"a streamer of {len(self._rows)} rows got {len(rows)}")
        texts = [detokenizer.append(ids) for detokenizer, ids in zip(self._rows, rows, strict=True)]
        if any(texts):
            self.on_finalized_text(texts if is_batch else texts[0])

    def end(self) -> None:
        texts = [detokenizer.flush() for detokenizer in self._rows]
        self._rows = []
        self.on_finalized_text(texts if len(texts) > 1 else "".join(texts), stream_end=True)

    def on_finalized_text(self, text: Text, stream_end: bool = False) -> None:
        """What is done with new text; subclasses may do something else."""
        if self._callback is None:
            print(text, flush=True, end="\n" if stream_end else "")
        elif any(text):
            self._callback(text)


class TextIteratorStreamer(TextStreamer):
    """Iterates over the text from another thread than the one that generates.

    Args:
        timeout: how many seconds to wait for the next text before queue.Empty is raised; None is for ever.
    """

    def __init__(
        self, tokenizer: Tokenizer, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self._timeout = timeout
        self._queue: queue.SimpleQueue[Text | None] = queue.SimpleQueue()

    def on_finalized_text(self, text: Text, stream_end: bool = False) -> None:
        if any(text):
            self._queue.put(text)
        if stream_end:
            self._queue.put(None)

    def __iter__(self) -> "TextIteratorStreamer":
        return self

    def __next__(self) -> Text:
        text = self._queue.get(timeout=self._timeout)
        if text is None:
            raise StopIteration
        return text


class AsyncTextIteratorStreamer(TextStreamer):
    """Iterates over the text in a coroutine while another thread generates; to be made where an event loop runs.

    Args:
        timeout: how many seconds to wait for the next text before TimeoutError is raised; None is for ever.
    """

    def __init__(
        self, tokenizer: Tokenizer, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self._timeout = timeout
        self._queue: asyncio.Queue[Text | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def on_finalized_text(self, text: Text, stream_end: bool = False) -> None:
        if any(text):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, text)
        if stream_end:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def __aiter__(self) -> "AsyncTextIteratorStreamer":
        return self

    async def __anext__(self) -> Text:
        async with asyncio.timeout(self._timeout):
            text = await self._queue.get()
        if text is None:
            raise StopAsyncIteration
        return text


def _rows(value: Any) -> tuple[list[list[int]], bool]:
    """The rows of token ids, and whether there are several."""
    ids = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(ids, int):
        return [[ids]], False
    ids = list(ids)
    if not ids or not isinstance(ids[0], (list, tuple)):
        return [ids], False
    return [list(row) for row in ids], len(ids) > 1
