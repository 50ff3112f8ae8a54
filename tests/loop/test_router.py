"""Which replica gets which request."""

import numpy as np

from mindgen.loop.request_reader import CheckedRequest, read_request
from mindgen.loop.router import Router
from mindgen.loop.subscription import Subscription
from mindgen.outputs import RequestOutput, TextChunk
from mindgen.sampling_params import SamplingParams


class Replica:
    """Notes what it is asked, and answers when the test says so."""

    def __init__(self) -> None:
        self.open: dict[int, Subscription] = {}
        self.asked: list[CheckedRequest] = []
        self.aborted = 0

    def submit(self, requests, subscription, is_streamed) -> None:
        for index, request in requests:
            self.open[index] = subscription
            self.asked.append(request)

    def abort(self, subscription) -> None:
        self.aborted += 1
        self.open.clear()

    def answer(self) -> None:
        for index, subscription in self.open.items():
            subscription.put([TextChunk(index, "", RequestOutput(0, None, [], [], True, None))])
        self.open.clear()


def ask(router: Router, *requests: CheckedRequest) -> Subscription:
    subscription = Subscription(len(requests))
    router.submit([*enumerate(requests)], subscription, False)
    return subscription


def request(prompt: str, max_tokens: int = 10, adapter_id: str | None = None) -> CheckedRequest:
    return read_request(prompt, SamplingParams(max_tokens=max_tokens), adapter_id)


def test_any_number_goes_evenly_on_any_number():
    for num_replicas in (1, 3, 4):
        for count in (1, 3, 10):
            replicas = [Replica() for _ in range(num_replicas)]
            ask(Router(replicas), *(request(f"prompt {i}") for i in range(count)))
            counts = sorted(len(each.asked) for each in replicas)
            assert sum(counts) == count and counts[-1] - counts[0] <= 1


def test_a_long_request_is_as_much_as_several_short_ones():
    replicas = [Replica(), Replica()]
    ask(Router(replicas), request("long", 1000), *(request(f"short {i}", 100) for i in range(9)))
    assert [len(each.asked) for each in replicas] == [1, 9]


def test_work_that_is_done_or_called_off_counts_no_more():
    replicas = [Replica(), Replica()]
    router = Router(replicas)
    ask(router, request("one", 500))
    replicas[0].answer()
    router.abort(ask(router, request("two", 500)))
    assert sum(each.aborted for each in replicas) == 1
    ask(router, request("three", 100))
    assert [each.work for each in router._replicas].count(0) == 1
    assert len(router._calls) == 1


def test_adapters_and_beginnings_go_where_they_were():
    replicas = [Replica() for _ in range(3)]
    router = Router(replicas)
    places: dict[str, set[int]] = {}
    generator = np.random.default_rng(0)
    for _ in range(60):
        name = f"adapter-{generator.integers(3)}"
        before = [len(each.asked) for each in replicas]
        ask(router, request("the same beginning", 10, name))
        (place,) = np.flatnonzero([len(each.asked) - count for each, count in zip(replicas, before, strict=True)])
        places.setdefault(name, set()).add(int(place))
        for each in replicas:
            each.answer()
    assert all(len(found) == 1 for found in places.values())


def test_a_conversation_goes_where_its_first_turn_was():
    """Of tokens and of text, also where the first turn is short."""
    tokens = np.random.default_rng(0).integers(3, 500, 400).tolist()
    for whole, sizes in ((tokens, (20, 90, 400)), ("".join(map(chr, tokens)), (80, 300, 400))):
        replicas = [Replica() for _ in range(3)]
        router, places = Router(replicas), []
        for num_others, size in zip((1, 0, 2), sizes, strict=True):  # so that the least work is elsewhere each time
            for other in range(num_others):
                ask(router, request(f"{size} {other}"))
            ask(router, read_request(whole[:size], SamplingParams(max_tokens=10), None))
            (place,) = [index for index, each in enumerate(replicas) if any(is_of(each, whole[:size]))]
            places.append(place)
            for each in replicas:
                each.answer()
                each.asked.clear()
        assert len(set(places)) == 1


def is_of(replica: Replica, prompt) -> list[bool]:
    return [prompt in (each.prompt, each.token_ids) for each in replica.asked]
