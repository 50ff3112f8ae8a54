"""New weights for a running engine: they come tensor by tensor beside its steps, and take their place between two."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.adapter_update import AdapterUpdate
from mindgen.engine.base_update import BaseUpdate
from mindgen.engine.engine import Engine
from mindgen.engine.sequence import BaseVersion
from mindgen.engine.update_options import BASE, UpdateOptions, UpdateReport, next_version
from mindgen.engine.weight_control import Change
from mindgen.errors import WeightUpdateError, WorkerError
from mindgen.loop.engine_loop import EngineLoop
from mindgen.system.checks import shown
from mindgen.weights.checksum import Examined
from mindgen.weights.mapped_tensor import MappedTensor


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What new weights are for.

    Attributes:
        target: "base" or an adapter's name.
        version: None is the next one.
    """

    target: str = BASE
    version: int | None = None
    options: UpdateOptions = field(default_factory=UpdateOptions)


class WeightUpdates:
    """Opens one update at a time; any thread may call."""

    def __init__(self, loop: EngineLoop, engine: Engine, registry: AdapterRegistry) -> None:
        self._loop, self._engine, self._registry = loop, engine, registry
        self._lock = threading.Lock()
        self._open: OpenUpdate | None = None

    def open(self, request: UpdateRequest) -> "OpenUpdate":
        """
        Raises:
            WeightUpdateError: another update has not ended, or the version does not go up.
        """
        target = request.target
        if not isinstance(target, str) or not target:
            raise WeightUpdateError(f"target must be {BASE!r} or an adapter's name, not {shown(target)}")
        request.options.check_target(target)
        with self._lock:
            if self._open is not None:
                raise WeightUpdateError(
                    f"new weights for {self._open.request.target} are on their way: finish or cancel these first"
                )
            version = next_version(target, self._version(target), request.version)
            self._open = OpenUpdate(request, version, self._loop, self._engine, self._registry)
            self._open.on_end = self._close
            return self._open

    def _version(self, target: str) -> int:
        if target == BASE:
            return self._engine.weights.base.version
        return self._registry.get(target).weight_version if target in self._registry.names() else 0

    def _close(self) -> None:
        with self._lock:
            self._open = None


class OpenUpdate:
    """Ends with `finish` or `cancel`; no step has to end before tensors come, nor for an adapter to take its name.

    Args:
        engine: the loop's.

    Attributes:
        on_end: is told that another one may begin.
        on_report: is told of the weights once they serve, before who has sent them.
        is_wanted: asked while requests keep the weights from serving: if it is not, the update is called off.
    """

    def __init__(
        self,
        request: UpdateRequest,
        version: int,
        loop: EngineLoop,
        engine: Engine,
        registry: AdapterRegistry,
    ) -> None:
        self.request = request
        self.on_end: Callable[[], None] | None = None
        self.on_report: Callable[[UpdateReport], None] | None = None
        self.is_wanted: Callable[[], bool] = lambda: True
        self._version, self._loop, self._engine, self._registry = version, loop, engine, registry
        self._adapter_id = None if request.target == BASE else request.target
        self._update = self._engine.begin_update(self._adapter_id, request.options)
        self._start: float | None = None
        self._is_ended = False

    def run(self, tensors: Iterable[tuple[str, MappedTensor]]) -> UpdateReport:
        """All of it; others may change the tensors' memory, or the file that it is."""
        try:
            for name, tensor in tensors:
                if self.wants(name, tensor.dtype, tensor.shape):
                    self.add(name, tensor.copy())
            return self.finish()
        finally:
            self.cancel()

    def wants(self, name: str, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor is to come, before anybody takes memory for it; bad names are refused at the end.

        Raises:
            WeightUpdateError: the dtype or the shape is not that of the weight.
        """
        self._start = self._start or time.perf_counter()
        return self._update.wants(name, dtype, shape)

    def add(self, name: str, tensor: MappedTensor, examined: Examined | None = None) -> None:
        """A wanted tensor, whose memory nobody may change from now on, and what is known of it.

        Raises:
            WeightUpdateError: it is not finite.
        """
        if isinstance(self._update, BaseUpdate):
            self._update.add(name, tensor, self.request.options.allow_nan, examined)
        else:
            self._update.add(name, tensor)

    def finish(self) -> UpdateReport:
        """Waits until the weights serve.

        Raises:
            MindgenError: they are refused; the old ones serve.
        """
        try:
            if isinstance(self._update, BaseUpdate):
                report = self._finish_base(self._update)
            else:
                report = self._finish_adapter(self._update)
        finally:
            self.cancel()
        if self.on_report is not None:
            self.on_report(report)
        return report

    def cancel(self) -> None:
        """Forgets what has come; nothing if it is finished."""
        if self._is_ended:
            return
        self._is_ended = True
        with suppress(WorkerError):  # the engine has ended
            if self._adapter_id is None:
                self._loop.call(lambda engine: engine.discard_weights())
        if self.on_end is not None:
            self.on_end()

    def _finish_base(self, update: BaseUpdate) -> UpdateReport:
        options = self.request.options
        update.check(options.expect_change, options.expect_all)
        before = self._engine.weights.base
        base = BaseVersion(update.checksum(), self._version)
        aborted = self._change(partial(self._take, update), base=base)
        return self._report(
            aborted,
            bytes_bound=update.bytes_bound,
            modules=update.modules(),
            checksum_before=before.checksum,
            checksum_after=base.checksum,
            missing=update.missing(),
            ignored=update.ignored,
        )

    def _finish_adapter(self, update: AdapterUpdate) -> UpdateReport:
        options = self.request.options
        before = update.digest_before()
        adapter = update.make(options.adapter_config)
        if options.expect_change and adapter.digest == before:
            raise WeightUpdateError(
                f"adapter {self.request.target} is what is served already: set expect_change to False if that is meant"
            )
        update.announce(adapter)
        version = self._registry.add_content(self.request.target, adapter, self._version)
        self._loop.settle_soon()
        aborted = 0
        if options.in_flight != "finish" or options.max_staleness is not None:
            aborted = self._change(lambda: None, adapter=version)
        return self._report(
            aborted,
            bytes_bound=sum(tensor.nbytes for each in adapter.updates.values() for tensor in each.tensors().values()),
            modules=len(adapter.updates),
            checksum_before=before,
            checksum_after=adapter.digest,
            missing=[],
            ignored=[],
        )

    def _take(self, update: BaseUpdate) -> None:
        """What is staged is this update's, unless it was called off in the meantime."""
        if self._is_ended:
            raise WeightUpdateError("the update was called off")
        self._engine.weights.take(update.received)

    def _change(self, make: Callable[[], None], **to: object) -> int:
        options = self.request.options
        change = Change(make, options.in_flight, "weights", options.max_staleness, **to)  # type: ignore[arg-type]
        return self._loop.change(change, self.is_wanted)

    def _report(self, aborted: int, **found: object) -> UpdateReport:
        return UpdateReport(
            target=self.request.target,
            version=self._version,
            tensors=len(self._update.names),
            bytes_received=self._update.bytes_received,
            aborted=aborted,
            seconds=time.perf_counter() - (self._start or time.perf_counter()),
            **found,  # type: ignore[arg-type]
        )
