"""A model without a network: it answers at once, with texts that depend on what is asked for and on its seed alone."""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mindgen.errors import RequestError, UnknownAdapterError
from mindgen.loop.engine_loop import IndexedRequest
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.subscription import Subscription
from mindgen.outputs import CompletionOutput, RequestOutput, TextChunk

ADAPTERS = {"A1": "1" * 64, "A2": "2" * 64}


class FakeServer:
    """Answers in a thread of its own, in an order that differs from that of the requests.

    Attributes:
        num_answered: requests since the start.
    """

    def __init__(self, seconds_per_request: float = 0.0) -> None:
        self._seconds = seconds_per_request
        self._condition = threading.Condition()
        self._waiting: list[tuple[int, CheckedRequest, Subscription]] = []
        self._is_closed = False
        self.num_answered = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool) -> None:
        with self._condition:
            self._waiting += [(index, request, subscription) for index, request in requests]
            self._condition.notify()

    def abort(self, subscription: Subscription) -> None:
        subscription.close()

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._is_closed:
                    self._condition.wait()
                if self._is_closed:
                    return
                batch, self._waiting = self._waiting[-8:], self._waiting[:-8]
            for index, request, subscription in reversed(batch):
                if self._seconds:
                    time.sleep(self._seconds)
                self.num_answered += 1
                subscription.put([TextChunk(index, "", answer(request))])


def answer(request: CheckedRequest) -> RequestOutput:
    params = request.params
    if request.prompt == "break":
        return RequestOutput.failed(0, request.prompt, request.adapter_id, RequestError("it broke"))
    outputs = []
    for index in range(params.n):
        seed = params.sample_seed(index, 0)
        words = hashlib.blake2b(f"{seed} {request.token_ids}".encode(), digest_size=4).hexdigest()
        outputs.append(CompletionOutput(index, f"{request.adapter_id} {words}", [1, 2, 3], finish_reason="stop"))
    digest = None if request.adapter_id is None else ADAPTERS[request.adapter_id]
    return RequestOutput(
        0, request.prompt, request.token_ids or [], outputs, True, None, adapter_id=request.adapter_id,
        adapter_digest=digest,
    )  # fmt: skip


class FakeModel:
    """As a BatchModel and its ModelOpener; a token is a letter."""

    def __init__(self, seconds_per_request: float = 0.0, num_slots: int = 16, digest: str = "f" * 64) -> None:
        self._seconds = seconds_per_request
        self.digest = digest
        self.dtype = "float32"
        self.num_slots = num_slots
        self.max_model_len = 100
        self.num_answered = 0

    def open(self) -> "FakeModel":
        self.server = FakeServer(self._seconds)
        return self

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 1000 for letter in text]

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> dict[str, Any]:
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return {"prompt": text, "prompt_token_ids": self.encode(text)}

    def adapter_digest(self, adapter_id: str) -> str:
        if adapter_id not in ADAPTERS:
            raise UnknownAdapterError(f"unknown adapter_id {adapter_id!r}")
        return ADAPTERS[adapter_id]

    def metrics(self) -> None:
        return None

    def close(self) -> None:
        self.num_answered += self.server.num_answered
        self.server.close()
