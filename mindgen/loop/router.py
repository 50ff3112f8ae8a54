"""Shares requests out over the replicas of a model: to the one with the least work, and of those that have about as
little to one that has the adapter, or the beginning of the prompt, in its memory."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from mindgen.loop.engine_loop import IndexedRequest
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.stream import Server
from mindgen.loop.subscription import Subscription

_MOST_REMEMBERED = 1024  # adapters, and beginnings of prompts, of a replica
_LETTERS_PER_TOKEN = 4
_PREFIX_TOKENS = (16, 64, 256)  # of a prompt that has as many, so that a conversation is known by its first turn
_USUAL_TOKENS = 256  # of an output without a limit


@dataclass
class _Replica:
    """A server, and what the router knows of it.

    Attributes:
        work: tokens of prompts and outputs that it may still have to compute.
        seen: what its memory may hold, the last one last.
    """

    server: Server
    work: int = 0
    seen: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)

    def remember(self, things: Sequence[Hashable]) -> None:
        for thing in things:
            self.seen[thing] = None
            self.seen.move_to_end(thing)
        while len(self.seen) > _MOST_REMEMBERED:
            self.seen.popitem(last=False)


class Router:
    """As a Server; any thread may call."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._replicas = [_Replica(server) for server in servers]  # of which one stays always
        self._lock = threading.Lock()
        self._calls: dict[Subscription, dict[int, tuple[_Replica, int]]] = {}  # by index: whose it is, and its work

    def leave(self, server: Server) -> None:
        """Gives it no requests any more."""
        with self._lock:
            self._replicas = [replica for replica in self._replicas if replica.server is not server]

    def join(self, server: Server) -> None:
        with self._lock:
            self._replicas = [*self._replicas, _Replica(server)]

    def submit(self, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool) -> None:
        shares: dict[int, tuple[_Replica, list[IndexedRequest]]] = {}
        with self._lock:
            subscription.on_last = lambda index: self._note_end(subscription, index)
            own = self._calls.setdefault(subscription, {})
            for index, request in requests:
                place, work = self._choose(request), _work(request)
                replica = self._replicas[place]
                own[index] = replica, work
                replica.work += work
                shares.setdefault(place, (replica, []))[1].append((index, request))
        for replica, share in shares.values():
            replica.server.submit(share, subscription, is_streamed)

    def abort(self, subscription: Subscription) -> None:
        subscription.close()
        with self._lock:
            left = self._calls.pop(subscription, {})
            for replica, work in left.values():
                replica.work -= work
        for replica in {id(replica): replica for replica, _ in left.values()}.values():
            replica.server.abort(subscription)

    def _choose(self, request: CheckedRequest) -> int:
        """Of the replicas that have at most this request more to do than the others, the one that remembers most."""
        adapter, prefixes = ("adapter", request.adapter_id), _prefixes(request)
        most = min(replica.work for replica in self._replicas) + _work(request)

        def rank(place: int) -> tuple[bool, int, int, int]:
            replica = self._replicas[place]
            is_strange = request.adapter_id is not None and adapter not in replica.seen
            return is_strange, -sum(prefix in replica.seen for prefix in prefixes), replica.work, place

        place = min((place for place, each in enumerate(self._replicas) if each.work <= most), key=rank)
        self._replicas[place].remember([adapter, *prefixes])
        return place

    def _note_end(self, subscription: Subscription, index: int) -> None:
        with self._lock:
            own = self._calls.get(subscription, {})
            if index in own:
                replica, work = own.pop(index)
                replica.work -= work
            if not own:
                self._calls.pop(subscription, None)


def _prefixes(request: CheckedRequest) -> list[Hashable]:
    """What requests that begin alike have in common; the adapter too, as blocks of the cache are an adapter's."""
    if request.token_ids is not None:
        tokens = request.token_ids
        return [(request.adapter_id, tuple(tokens[:size])) for size in _PREFIX_TOKENS if len(tokens) >= size]
    text, sizes = request.prompt or "", [size * _LETTERS_PER_TOKEN for size in _PREFIX_TOKENS]
    return [(request.adapter_id, text[:size]) for size in sizes if len(text) >= size]


def _work(request: CheckedRequest) -> int:
    prompt = len(request.prompt or "") // _LETTERS_PER_TOKEN if request.token_ids is None else len(request.token_ids)
    output = _USUAL_TOKENS if request.params.max_tokens is None else request.params.max_tokens
    return 1 + prompt + output * request.params.num_sequences
