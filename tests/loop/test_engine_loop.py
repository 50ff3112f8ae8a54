"""The thread that owns an engine: readers that lag or vanish, steps that fail, pauses, and the end."""

import gc
import threading
import time

import pytest
from loops import engine_of

from mindgen import LLM, SamplingParams
from mindgen.errors import KernelError, WorkerError

PROMPT = "An increasing sequence: one,"
LONG = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def llm():
    return LLM("demo", dtype="float32")


@pytest.fixture(scope="module")
def answers(llm):
    return [llm.generate(PROMPT, params)[0].outputs[0].text for params in (SHORT, LONG)]


def test_a_slow_reader_holds_nobody_up_and_loses_nothing(llm, answers):
    stream = llm.stream(PROMPT, LONG)
    text = "".join(chunk.text for chunk in stream.advance())
    assert [output.outputs[0].text for output in llm.generate([PROMPT] * 5, SHORT)] == [answers[0]] * 5
    while engine_of(llm).has_unfinished():
        time.sleep(0.01)
    for chunk in stream:
        text += chunk.text
    assert text == answers[1]


def test_a_reader_that_vanishes_calls_its_requests_off(llm):
    stream = llm.stream([PROMPT] * 3, LONG)
    stream.advance()
    del stream
    gc.collect()
    assert not engine_of(llm).has_unfinished()
    engine_of(llm).check_integrity()


def test_a_step_that_fails_ends_what_was_in_it_and_no_more(llm, answers, monkeypatch):
    stream = llm.stream(PROMPT, LONG)
    stream.advance()
    with monkeypatch.context() as patch:

        def fail(*_):
            raise KernelError("a kernel refused it")

        patch.setattr(engine_of(llm), "step", fail)
        with pytest.raises(KernelError, match="a kernel refused it"):
            list(stream)
        with pytest.raises(KernelError):
            llm.generate(PROMPT, SHORT)
    assert not engine_of(llm).has_unfinished()
    assert llm.generate(PROMPT, SHORT)[0].outputs[0].text == answers[0]


def test_nothing_happens_in_a_pause(llm, answers):
    loop = llm._model.loop
    loop.pause()
    done: list[str] = []
    asking = threading.Thread(target=lambda: done.append(llm.generate(PROMPT, SHORT)[0].outputs[0].text))
    asking.start()
    before = llm.metrics().generated_tokens
    time.sleep(0.2)
    assert not done and llm.metrics().generated_tokens == before
    loop.resume()
    asking.join(30)
    assert done == answers[:1]


def test_what_a_function_raises_is_its_callers(llm, answers):
    with pytest.raises(ZeroDivisionError):
        llm._model.loop.call(lambda engine: 1 // 0)
    assert llm.generate(PROMPT, SHORT)[0].outputs[0].text == answers[0]


def test_a_closed_model_refuses_and_its_readers_are_told():
    llm = LLM("demo")
    stream = llm.stream(PROMPT, LONG)
    stream.advance()
    threads = threading.active_count()
    llm.close()
    assert threading.active_count() < threads
    with pytest.raises(WorkerError, match="the model was closed"):
        list(stream)
    with pytest.raises(WorkerError, match="the model was closed"):
        llm.generate(PROMPT, SHORT)
    llm.close()
