"""Requests that go forward one step of the engine at a time, when they are told to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mindgen.errors import RequestError, UsageError
from mindgen.loop.engine_loop import EngineLoop
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.stream import Server
from mindgen.loop.subscription import Subscription, Waiter
from mindgen.outputs import RequestOutput, TextChunk

_RESERVED = "requests of _add_request have not ended: go on with schedule and execute_step, or close() the module"
STEP_KEYS = ("seq_group_metadata_list", "blocks_to_swap_in", "blocks_to_swap_out", "blocks_to_copy")


class _Collector(Subscription):
    """Keeps what has ended; nobody waits for it, as the step that brings it is waited for."""

    def __init__(self, num_requests: int) -> None:
        super().__init__(num_requests)
        self.open = dict.fromkeys(range(num_requests))
        self.outputs: list[RequestOutput] = []
        self.error: BaseException | None = None

    def put(self, chunks: list[TextChunk]) -> Waiter | None:
        for chunk in chunks:
            if chunk.output is not None:
                self.open.pop(chunk.index)
                self.outputs.append(replace(chunk.output, request_id=chunk.index))
        return None

    def fail(self, error: BaseException) -> Waiter | None:
        self.error = error
        self.open.clear()
        return None


class StepLoop:
    """While it has requests the engine makes no step but its own: other threads that ask for something wait, and its
    own thread is refused, as it would wait for itself.

    Raises:
        UsageError: the model has several replicas, which do not step together.
    """

    def __init__(self, server: Server) -> None:
        if not isinstance(server, EngineLoop):
            raise UsageError(
                "schedule and execute_step need a model of one replica: use generate, or forward_step of rows"
            )
        self._loop = server
        self._requests = _Collector(0)

    @property
    def num_unfinished(self) -> int:
        return len(self._requests.open)

    def add(self, requests: Sequence[CheckedRequest]) -> None:
        """Takes these in place of those before, which are called off."""
        self.close()
        self._requests = _Collector(len(requests))
        if not requests:
            return
        self._loop.pause()
        self._loop.submit([*enumerate(requests)], self._requests, is_streamed=False)
        self._loop.reserve(_RESERVED)

    def schedule(self) -> dict[str, Any]:
        """What `execute_step` takes; {} when nothing is left. The engine itself chooses, within the step, who is in it
        and which blocks move."""
        unfinished = [*self._requests.open]
        if not unfinished:
            return {}
        return {
            "seq_group_metadata_list": unfinished,
            "blocks_to_swap_in": {},
            "blocks_to_swap_out": {},
            "blocks_to_copy": {},
            "num_lookahead_slots": 0,
            "running_queue_size": len(unfinished),
            "finished_requests_ids": [output.request_id for output in self._requests.outputs],
        }

    def execute(self, data: Mapping[str, Any]) -> int:
        """Runs a step; how many requests are left.

        Raises:
            RequestError: that is not what `schedule` has given last.
            BaseException: what has stopped the engine.
        """
        missing = [key for key in STEP_KEYS if key not in data]
        if missing or list(data["seq_group_metadata_list"]) != [*self._requests.open] or not self._requests.open:
            what = f"it has no {missing[0]}" if missing else "requests have ended since, or there are others"
            raise RequestError(f"execute_step takes what schedule has given for this step: {what}")
        self._loop.step()
        if self._requests.error is not None:
            self._loop.resume()
            raise self._requests.error
        if not self._requests.open:
            self._loop.resume()
        return len(self._requests.open)

    def outputs(self) -> list[RequestOutput]:
        """Those that have ended, in the order of the requests, by which their request_id counts."""
        return sorted(self._requests.outputs, key=lambda output: output.request_id)

    def close(self) -> None:
        """Calls off what has not ended."""
        if self._requests.open:
            self._loop.abort(self._requests)
            self._loop.resume()
            self._requests.open.clear()
