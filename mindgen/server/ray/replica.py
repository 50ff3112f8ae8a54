"""A replica on some machine of the cluster: the whole application of a server, without a port."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Message

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import WorkerError
from mindgen.loop.model_files import ModelFiles
from mindgen.server.config import ServerConfig
from mindgen.settings import GenerationSettings
from mindgen.system.memory import keep_heap

_MOST_MESSAGES = 64  # that wait for a slow reader


@dataclass(frozen=True, slots=True)
class ReplicaOrder:
    """What every replica loads; paths are the same on all machines.

    Attributes:
        name: what clients call the base model.
        generation: what holds for requests that say nothing else.
    """

    files: ModelFiles
    dtype: str
    limits: EngineConfig
    name: str
    generation: GenerationSettings
    config: ServerConfig


class ServedReplica:
    """What an actor of Ray Serve is."""

    async def __init__(self, order: ReplicaOrder) -> None:  # type: ignore[misc]
        self._until_end = AsyncExitStack()
        self._app: Any = await asyncio.to_thread(self._load, order)
        await self._until_end.enter_async_context(self._app.router.lifespan_context(self._app))

    def check_health(self) -> None:
        """Raises WorkerError where the model cannot answer any more: Ray Serve starts another replica then."""
        failure = self._app.state.service.failure
        if failure is not None:
            raise WorkerError(failure)

    async def answer(self, place: int, scope: dict[str, Any], body: bytes) -> AsyncGenerator[Message, None]:
        """The application's messages.

        Args:
            place: is for who has chosen this replica.
            scope: ASGI's, of an HTTP request.
        """
        messages: asyncio.Queue[Message | None] = asyncio.Queue(_MOST_MESSAGES)
        incoming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if incoming:
                return incoming.pop()
            return await asyncio.Future()  # who leaves has this call cancelled

        async def run() -> None:
            try:
                await self._app({**scope, "state": {}}, receive, messages.put)
            finally:
                await messages.put(None)

        running = asyncio.create_task(run())
        try:
            while (message := await messages.get()) is not None:
                yield message
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def __del__(self) -> None:
        await self._until_end.aclose()
        self._llm.close()

    def _load(self, order: ReplicaOrder) -> Any:
        from mindgen.llm import LLM  # starts MindSpore, which the process that places replicas need not
        from mindgen.server.assemble import assemble
        from mindgen.server.model import ServedModel
        from mindgen.server.outside import read_outside

        limits = replace(order.limits, data_parallel_size=1)
        outside = read_outside(order.config, lambda line: print(line, flush=True))
        self._llm = LLM(order.files.model, order.files.adapters, order.dtype, limits, checkpoint=order.files.checkpoint)
        model = ServedModel.of(self._llm, order.files, order.name, order.generation, limits)
        app = assemble(model, order.config, outside)
        keep_heap()
        return app
