"""What tests look at behind an LLM, whose engine belongs to a thread of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mindgen import LLM, SamplingParams
from mindgen.engine.engine import Engine
from mindgen.loop.open_request import OpenRequest
from mindgen.loop.request_reader import read_request
from mindgen.loop.stream import ChunkStream
from mindgen.loop.text_engine import TextEngine


def engine_of(llm: LLM) -> Engine:
    """The engine, once its loop has done all that was asked before."""
    return llm._model.loop.call(lambda engine: engine)


@contextmanager
def stopped(llm: LLM) -> Iterator[TextEngine]:
    """The engine with its texts, for the test's own steps: the loop makes none until this is left."""
    llm._model.loop.pause()
    try:
        yield llm._model._texts
    finally:
        llm._model.loop.resume()


@contextmanager
def held_after(llm: LLM, steps: int, *streams: Callable[[], ChunkStream]) -> Iterator[list[ChunkStream]]:
    """Opens streams, and no step but these is made until this is left: what happens meanwhile finds them half done."""
    loop = llm._model.loop
    loop.pause()
    try:
        opened = [stream() for stream in streams]
        for stream in opened:
            stream._send()
        for _ in range(steps):
            loop.step()
        yield opened
    finally:
        loop.resume()


def open_all(texts: TextEngine, asked: list[tuple[str, SamplingParams, str | None]]) -> list[OpenRequest]:
    """Opens the requests; they go on as the test calls `step`."""
    return [texts.add(index, texts.prepare(read_request(*each)), is_streamed=True) for index, each in enumerate(asked)]
