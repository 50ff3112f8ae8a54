"""Adapters are loaded and unloaded while requests run, one at a time but for what waits for its requests."""

import asyncio
from contextlib import suppress
from pathlib import Path

from mindgen.adapters.registry import BASE_NAME
from mindgen.errors import AsleepError, MindgenError, UnknownAdapterError
from mindgen.llm import LLM
from mindgen.sampling_params import SamplingParams
from mindgen.server.adapters.catalog import Catalog
from mindgen.server.adapters.names import why_not_named
from mindgen.server.errors import ApiError, bad_request
from mindgen.server.observe.metrics import ServerMetrics
from mindgen.system.checks import shown

_LOOK_SECONDS = 0.02  # between two looks whether an adapter's last request has left the engine
_PROBE = [1]  # a prompt of one token, which every vocabulary has
_FIRST = -1000  # its priority: nobody waits behind it for long


class AdapterLifeCycle:
    """Belongs to one event loop.

    Args:
        llm: whose adapters they are.
        catalog: is kept as they are.
    """

    def __init__(self, llm: LLM, catalog: Catalog, metrics: ServerMetrics) -> None:
        self._llm, self._catalog, self._metrics = llm, catalog, metrics
        self._changing = asyncio.Lock()
        self._releasing: set[asyncio.Future[None]] = set()

    async def load(self, name: str, folder: Path, is_replaced: bool) -> int:
        """Answers with it once, so that what cannot be served is refused now; returns which load this is.

        Args:
            is_replaced: the name may be another's, whose requests keep what they have.

        Raises:
            ApiError: the name is taken, or none; or the adapter cannot be served.
        """
        async with self._changing:
            why = why_not_named(name, self._catalog.base)
            if why is not None:
                message = f"no adapter can be named {shown(name)}, which {why}: choose another name"
                raise bad_request(message, param="lora_name", code="InvalidUserInput")
            was_there = self._catalog.has(name)
            if was_there and not is_replaced:
                message = f"The lora adapter {name!r} has already been loaded."
                raise bad_request(message, param="lora_name", code="InvalidUserInput")
            if self._catalog.is_leaving(name):
                message = f"the adapter {name!r} is being unloaded, which waits for its requests: try again later"
                raise bad_request(message, param="lora_name", code="InvalidUserInput")
            await self._add(name, folder, was_there)
            return self._catalog.add(name)

    async def unload(self, name: str, load: int | None = None) -> None:
        """Returns when its last request has ended and its memory is given back.

        Args:
            load: the only one that is meant; what others have brought under the name stays. None is whatever has it.

        Raises:
            ApiError: there is no such adapter.
        """
        async with self._changing:
            if load is not None and not self._catalog.has(name, load):
                return
            if not self._catalog.has(name):
                message = f"The lora adapter {name!r} cannot be found."
                raise ApiError(404, "invalid_request_error", message, param="lora_name", code="NotFoundError")
            adapter = self._catalog.remove(name)
        try:
            if adapter.num_users:
                await adapter.idle.wait()
            async with self._changing:
                await asyncio.to_thread(self._llm.remove_adapter, name)
                self._metrics.forget_adapter(name)
        finally:
            self._catalog.free(name)
        await self._release()

    def is_served(self, name: str, load: int) -> bool:
        """Whether the name has what this load has brought."""
        return self._catalog.has(name, load)

    def is_leaving(self, name: str) -> bool:
        """Whether it is being unloaded, so that the name cannot be taken yet."""
        return self._catalog.is_leaving(name)

    async def adopt(self, name: str) -> None:
        """Lets clients ask for an adapter that has come as weights."""
        if name == BASE_NAME:
            return
        if self._catalog.has(name):
            self._catalog.add(name)
            return
        async with self._changing:
            if name in self._llm.adapter_ids and not self._catalog.is_leaving(name):
                self._catalog.add(name)

    async def _add(self, name: str, folder: Path, was_there: bool) -> None:
        """A name that is another's is taken once the folder is known to be served, which shows under a name of ours."""
        trial = f"{name} (being loaded)" if was_there else name
        try:
            await asyncio.to_thread(self._llm.add_adapter, trial, folder)
            await asyncio.to_thread(self._probe, trial)
        except MindgenError as error:
            with suppress(UnknownAdapterError):  # the folder was not even there
                await asyncio.to_thread(self._llm.remove_adapter, trial)
            self._release_later()
            if isinstance(error, AsleepError):
                raise
            raise bad_request(str(error).replace(trial, name), param="lora_path", code="InvalidUserInput") from error
        if was_there:
            await asyncio.to_thread(self._llm.add_adapter, name, folder)
            await asyncio.to_thread(self._llm.remove_adapter, trial)
            await asyncio.to_thread(self._probe, name)
            self._release_later()

    def _probe(self, name: str) -> None:
        """Raises MindgenError where no replica can serve it."""
        self._llm.generate([_PROBE], SamplingParams(max_tokens=1, temperature=0, priority=_FIRST), name)

    def _release_later(self) -> None:
        """Nobody else has to wait for the requests of what was there, which may take long."""
        releasing = asyncio.ensure_future(self._release())
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)

    async def _release(self) -> None:
        while await asyncio.to_thread(self._llm.release_adapters):
            await asyncio.sleep(_LOOK_SECONDS)
