"""What stands between an engine's thread and whoever reads: bounded, whole, and in nobody's way."""

import asyncio
import threading

import pytest

from mindgen.errors import WorkerError
from mindgen.loop.subscription import Subscription, wake
from mindgen.outputs import Logprob, RequestOutput, TextChunk


def chunk(index: int, text: str, output_index: int = 0) -> TextChunk:
    return TextChunk(index, text, None, output_index, [ord(text)])


def last(index: int) -> TextChunk:
    return TextChunk(index, "", RequestOutput(0, None, [], [], True, None))


def read_all(subscription: Subscription) -> list[list[TextChunk]]:
    steps = []
    while subscription.is_open:
        steps.append(subscription.take())
    return steps


def test_steps_come_apart_and_in_order():
    subscription = Subscription(2)
    for step in ([chunk(0, "a"), chunk(1, "x")], [chunk(0, "b"), last(1)], [last(0)]):
        subscription.put(step)
    steps = read_all(subscription)
    assert [[each.text for each in step] for step in steps] == [["a", "x"], ["b", ""], [""]]
    assert not subscription.is_open and subscription.take() == []


def test_a_reader_that_lags_gets_steps_joined_and_loses_nothing():
    subscription = Subscription(2, most_steps=3)
    for place in range(26):
        subscription.put([chunk(0, chr(97 + place)), chunk(0, chr(65 + place), 1), chunk(1, "-")])
    subscription.put([last(0)])
    subscription.put([chunk(1, "!"), last(1)])
    steps = read_all(subscription)
    assert len(steps) == 3
    texts, tokens = {}, {}
    for each in (each for step in steps for each in step):
        key = each.index, each.output_index
        texts[key] = texts.get(key, "") + each.text
        tokens[key] = tokens.get(key, []) + each.token_ids
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    assert texts == {(0, 0): alphabet, (0, 1): alphabet.upper(), (1, 0): "-" * 26 + "!"}
    assert all("".join(map(chr, ids)) == texts[key] for key, ids in tokens.items())
    assert sum(each.output is not None for each in steps[-1]) == 2


def test_an_error_comes_after_what_is_there():
    subscription = Subscription(1)
    subscription.put([chunk(0, "a")])
    subscription.fail(WorkerError("it ended"))
    assert subscription.take()[0].text == "a"
    with pytest.raises(WorkerError, match="it ended"):
        subscription.take()
    assert not subscription.is_open


def test_whoever_waits_is_told_of_chunks_and_of_the_end():
    subscription, read = Subscription(1), []

    def listen() -> None:
        while subscription.is_open:
            read.extend(subscription.take())

    reader = threading.Thread(target=listen)
    reader.start()
    subscription.put([chunk(0, "a")])
    subscription.close()
    reader.join(10)
    assert not reader.is_alive() and len(read) <= 1
    assert subscription.put([chunk(0, "b")]) is None and not subscription.is_open


def test_coroutines_wait_without_threads():
    async def listen(subscription: Subscription) -> str:
        text = ""
        while subscription.is_open:
            text += "".join(each.text for each in await subscription.take_async())
        return text

    async def talk() -> list[str]:
        subscriptions = [Subscription(1) for _ in range(200)]
        before = threading.active_count()
        tasks = [asyncio.create_task(listen(each)) for each in subscriptions]
        await asyncio.sleep(0)

        def engine() -> None:
            for letter in "abc":
                wake([waiter for each in subscriptions if (waiter := each.put([chunk(0, letter)])) is not None])
            for each in subscriptions[1:]:
                wake([waiter] if (waiter := each.put([last(0)])) is not None else [])
            subscriptions[0].close()

        thread = threading.Thread(target=engine)
        thread.start()
        assert threading.active_count() <= before + 1
        texts = await asyncio.wait_for(asyncio.gather(*tasks), 30)
        thread.join()
        return texts

    first, *others = asyncio.run(talk())
    assert others == ["abc"] * 199 and "abc".startswith(first)
    wake([])


def test_a_loop_that_is_closed_is_no_error():
    subscription = Subscription(1)

    async def wait_a_little() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(subscription.take_async(), 0.01)

    asyncio.run(wait_a_little())
    waiter = subscription.put([chunk(0, "a")])
    assert waiter is not None and waiter.get_loop().is_closed()
    wake([waiter])


def test_logprobs_of_joined_steps_are_joined():
    subscription = Subscription(1, most_steps=1)
    for token_id in range(3):
        subscription.put([TextChunk(0, "x", None, 0, [token_id], [{token_id: Logprob(-1.0, 1)}])])
    (chunk,) = subscription.take()
    assert (chunk.text, chunk.token_ids, chunk.logprobs) == ("xxx", [0, 1, 2], [{0: -1.0}, {1: -1.0}, {2: -1.0}])
