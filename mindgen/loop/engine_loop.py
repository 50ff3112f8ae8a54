"""The one thread that owns an engine: what is asked of it goes in by a queue, what it gives goes to subscriptions."""

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import TypeVar

from mindgen.engine.engine import Engine
from mindgen.engine.weight_control import Change
from mindgen.errors import QueueFullError, UsageError, WorkerError, as_request_error
from mindgen.loop.open_request import OpenRequest, PreparedRequest
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.subscription import Subscription, Waiter, wake
from mindgen.loop.text_engine import TextEngine
from mindgen.outputs import RequestOutput, TextChunk

Result = TypeVar("Result")
_LOOK_SECONDS = 0.1
IndexedRequest = tuple[int, CheckedRequest]
_Unsent = deque[tuple[int, PreparedRequest | TextChunk]]  # or the last chunk of one that is refused


class EngineLoop:
    """Any thread may call; requests of all calls share the engine's steps. It ends with `close`, or with its last user.

    Args:
        texts: belongs to the loop's thread from now on.
    """

    def __init__(self, texts: TextEngine) -> None:
        self._texts = texts
        self._reserved: tuple[int, str] | None = None  # the thread that has the steps, and what it is told
        self._thread = _LoopThread(texts)
        self._thread.start()
        self._end = weakref.finalize(self, _LoopThread.end, self._thread)

    def submit(self, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool) -> None:
        """Has requests served; what is wrong with one shows in its last chunk.

        Args:
            requests: with their indices among those of the call.
            is_streamed: somebody waits for the text as it comes; else a request's chunks come at its end.

        Raises:
            WorkerError: the loop was closed.
            UsageError: this thread has reserved its steps.
        """
        self._require_steps()
        prepared: _Unsent = deque()
        for index, request in requests:
            try:
                prepared.append((index, self._texts.prepare(request)))
            except Exception as error:
                prepared.append((index, _refusal(index, request.prompt, request.adapter_id, error)))
        self._thread.ask(partial(self._thread.open, prepared, subscription, is_streamed))

    def abort(self, subscription: Subscription) -> None:
        """Calls off what has not ended of a call, between two steps."""
        subscription.close()
        if subscription.is_unfinished:
            with suppress(WorkerError):
                self._thread.ask(partial(self._thread.cancel, subscription))

    def call(self, function: Callable[[Engine], Result]) -> Result:
        """What the function makes of the engine, between two steps; raises what it raises."""
        return self._thread.call(partial(function, self._texts.engine))

    def change(self, change: Change, is_wanted: Callable[[], bool] = lambda: True) -> int:
        """Waits until the requests in flight have let the change happen; how many were called off for it.

        Args:
            is_wanted: asked meanwhile.

        Raises:
            UsageError: it waits for steps that this thread has reserved.
            WeightUpdateError: it was not wanted any more, and has not happened.
            Exception: what has kept it from happening; or what has interrupted this thread, and then it may have.
        """
        if change.waits:
            self._require_steps()
        try:
            self.call(lambda engine: engine.weights.ask(change))
            while not wait([change.done], _LOOK_SECONDS).done and is_wanted():
                pass
        finally:
            if not change.done.done():
                self.call(lambda engine: engine.weights.withdraw(change))
        return change.done.result()

    def settle_soon(self) -> None:
        """Has an engine that rests let go of what nobody needs; returns at once."""
        self._thread.ask(lambda: None)  # after which it looks anew

    def pause(self) -> None:
        """No step begins any more; returns when the last one has ended."""
        self._thread.call(partial(self._thread.hold, True))

    def reserve(self, reason: str) -> None:
        """Has this thread be refused, for that reason, what steps alone bring, until `resume`: it makes them itself."""
        self._reserved = threading.get_ident(), reason

    def resume(self) -> None:
        self._reserved = None
        self._thread.call(partial(self._thread.hold, False))

    def step(self) -> None:
        """Runs one step while it is paused; what that brings has been passed on when this returns."""
        self._thread.call(self._thread.step_once)

    def _require_steps(self) -> None:
        if self._reserved is not None and self._reserved[0] == threading.get_ident():
            raise UsageError(self._reserved[1])

    def close(self) -> None:
        """Ends the thread, and the engine with it; open calls get no further chunks."""
        self._end()


class _LoopThread(threading.Thread):
    """Everything but `ask` and `end` happens in the thread itself."""

    def __init__(self, texts: TextEngine) -> None:
        super().__init__(name="engine", daemon=True)
        self._texts = texts
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._unsent: dict[Subscription, tuple[_Unsent, bool]] = {}
        self._subscriptions: dict[OpenRequest, Subscription] = {}
        self._is_held = self._is_ending = self._is_ended = False
        self._ending = threading.Lock()  # of the inbox's end

    def run(self) -> None:
        while not self._is_ending:
            self._do(self._texts.engine.settle)
            if self._is_held or not (self._unsent or self._texts.has_unfinished()):
                self._do(self._pass_on_rest)
                self._wait()
            while not self._inbox.empty():
                self._do(self._inbox.get())
            if not (self._is_held or self._is_ending):
                self._do(self._step)
        with self._ending:
            self._is_ended = True
        while not self._inbox.empty():
            self._do(self._inbox.get())
        wake_all(self._fail(_closed()))

    def _wait(self) -> None:
        """For what is asked next, or for a deadline."""
        with suppress(queue.Empty):
            self._do(self._inbox.get(timeout=self._texts.engine.seconds_of_sleep()))

    def _do(self, function: Callable[[], object]) -> None:
        """A step, or what has been asked for; if it fails, the calls end, and not the thread."""
        try:
            function()
        except Exception as error:
            wake_all(self._fail(error))

    def ask(self, function: Callable[[], object]) -> None:
        """Raises WorkerError when the thread has ended."""
        with self._ending:
            if self._is_ended:
                raise _closed()
            self._inbox.put(function)

    def call(self, function: Callable[[], Result]) -> Result:
        if threading.current_thread() is self:
            return function()
        future: Future[Result] = Future()
        self.ask(partial(_fulfil, future, function))
        return future.result()

    def end(self) -> None:
        with suppress(WorkerError):
            self.ask(self._stop)
        if threading.current_thread() is not self:
            self.join()
        self._texts.engine.close()

    def _stop(self) -> None:
        self._is_ending = True

    def hold(self, is_held: bool) -> None:
        self._is_held = is_held

    def step_once(self) -> None:
        self._do(self._step)
        self._do(self._pass_on_rest)

    def open(self, requests: _Unsent, subscription: Subscription, is_streamed: bool) -> None:
        if requests:
            self._unsent[subscription] = requests, is_streamed

    def cancel(self, subscription: Subscription) -> None:
        self._unsent.pop(subscription, None)
        for opened in [each for each, own in self._subscriptions.items() if own is subscription]:
            self._texts.cancel(opened)
            del self._subscriptions[opened]

    def _step(self) -> None:
        wake_all(self._send())
        self._pass_on(self._texts.step() if self._texts.has_unfinished() else [])

    def _pass_on_rest(self) -> None:
        self._pass_on(self._texts.make_rest())

    def _pass_on(self, changed: Sequence[OpenRequest]) -> None:
        chunks: dict[Subscription, list[TextChunk]] = {}
        for opened in changed:
            subscription = self._subscriptions[opened]
            chunks.setdefault(subscription, []).extend(opened.take_chunks())
            if opened.request.is_finished:
                del self._subscriptions[opened]
        wake_all([
            subscription.put(sorted(own, key=lambda chunk: chunk.index)) for subscription, own in chunks.items()
        ])  # fmt: skip

    def _send(self) -> list[Waiter | None]:
        """Passes on as many requests as the engine takes, one of each call in turn."""
        waiters: list[Waiter | None] = []
        while self._unsent:
            for subscription, (requests, is_streamed) in list(self._unsent.items()):
                index, prepared = requests[0]
                try:
                    refused = self._add(index, prepared, subscription, is_streamed)
                except QueueFullError:
                    return waiters
                if refused is not None:
                    waiters.append(subscription.put([refused]))
                requests.popleft()
                if not requests:
                    del self._unsent[subscription]
        return waiters

    def _add(
        self, index: int, prepared: PreparedRequest | TextChunk, subscription: Subscription, is_streamed: bool
    ) -> TextChunk | None:
        """Passes a request on to the engine; the last chunk if it is refused."""
        if isinstance(prepared, TextChunk):
            return prepared
        try:
            self._subscriptions[self._texts.add(index, prepared, is_streamed)] = subscription
        except QueueFullError:
            raise
        except Exception as error:
            return _refusal(index, prepared.prompt, prepared.adapter_id, error)
        return None

    def _fail(self, error: BaseException) -> list[Waiter | None]:
        """Ends all calls: what stops a step stops every request in it."""
        subscriptions = {*self._subscriptions.values(), *self._unsent}
        for subscription in subscriptions:
            with suppress(Exception):  # a broken engine may fail at this too: readers are told all the same
                self.cancel(subscription)
        self._subscriptions.clear()
        self._unsent.clear()
        return [subscription.fail(error) for subscription in subscriptions]


def _closed() -> WorkerError:
    return WorkerError("the model was closed: nothing can be asked of it any more")


def _refusal(index: int, prompt: str | None, adapter_id: str | None, error: Exception) -> TextChunk:
    """The last chunk of a request that never came to be computed."""
    reason = as_request_error(error, "preparing the request")
    return TextChunk(index, "", RequestOutput.failed(index, prompt, adapter_id, reason))


def wake_all(waiters: Sequence[Waiter | None]) -> None:
    wake([waiter for waiter in waiters if waiter is not None])


def _fulfil(future: "Future[Result]", function: Callable[[], Result]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
