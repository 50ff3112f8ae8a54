"""New weights for the model and its adapters while the server answers: by a request, or through a socket."""

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindgen.engine.update_options import BASE, UpdateReport
from mindgen.errors import AdapterError, CheckpointError, ModelError, WeightUpdateError
from mindgen.llm import LLM
from mindgen.loop.weight_updates import OpenUpdate, UpdateRequest
from mindgen.server.adapters.life_cycle import AdapterLifeCycle
from mindgen.server.adapters.names import why_not_named
from mindgen.server.errors import bad_request
from mindgen.system.checks import shown


class ServedWeights:
    """Belongs to one event loop, but for `open_update`, which any thread may call.

    Args:
        base: what clients call the base model.
        adapters: is told of those that come as weights.
    """

    def __init__(self, llm: LLM, base: str, adapters: AdapterLifeCycle) -> None:
        self._llm, self._base, self._adapters = llm, base, adapters
        self._loop: Future[asyncio.AbstractEventLoop] = Future()

    def begin(self) -> None:
        """In the event loop."""
        self._loop.set_result(asyncio.get_running_loop())

    async def update(self, folder: Path, target: str, version: int | None, options: dict[str, Any]) -> UpdateReport:
        """As LLM.update_weights.

        Raises:
            MindgenError, ApiError: the weights are refused; the old ones serve.
        """
        target = self._target(target)
        try:
            report = await asyncio.to_thread(self._llm.update_weights, folder, target, version, **options)
        except (AdapterError, CheckpointError, ModelError) as error:
            raise bad_request(str(error), code="weights_refused") from error
        await self._adapters.adopt(target)
        return report

    def open_update(self, request: UpdateRequest) -> OpenUpdate:
        """As LLM's; whoever has sent the weights hears of their end when clients can ask for them.

        Raises:
            MindgenError: the weights are refused.
        """
        update = self._llm.open_update(replace(request, target=self._target(request.target)))
        update.on_report = self._note
        return update

    def _target(self, target: str) -> str:
        if target in (BASE, self._base):
            return BASE
        why = why_not_named(target, self._base)
        if why is not None:
            raise WeightUpdateError(f"no adapter can be named {shown(target)}, which {why}: choose another target")
        return target

    def _note(self, report: UpdateReport) -> None:
        asyncio.run_coroutine_threadsafe(self._adapters.adopt(report.target), self._loop.result()).result()
