"""What all routes use."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.requests import Request

from mindgen.errors import ReplicaEndedError, WorkerError
from mindgen.loop.stream import ChunkStream
from mindgen.server.adapters.catalog import Adapter, Catalog
from mindgen.server.adapters.digests import AdapterDigests
from mindgen.server.adapters.life_cycle import AdapterLifeCycle
from mindgen.server.adapters.roots import Roots
from mindgen.server.config import ServerConfig
from mindgen.server.errors import ApiError
from mindgen.server.generation.call import Call, Order
from mindgen.server.limits.gate import Gate, Lease
from mindgen.server.limits.keys import Caller, KeyRing
from mindgen.server.model import ServedModel
from mindgen.server.observe.call_record import CallRecord
from mindgen.server.observe.metrics import ServerMetrics
from mindgen.server.weights import ServedWeights


@dataclass(slots=True)
class Service:
    """
    Attributes:
        write_log: takes a line of the access log; None for none.
        failure: why the model cannot answer any more; None while it can.
        num_outputs: that are computed or wait, by the model's name that clients ask for.
    """

    config: ServerConfig
    model: ServedModel
    catalog: Catalog
    adapters: AdapterLifeCycle
    digests: AdapterDigests
    roots: Roots
    weights: ServedWeights
    weight_roots: Roots
    keys: KeyRing
    gate: Gate
    metrics: ServerMetrics
    write_log: Callable[[str], None] | None
    failure: str | None = None
    num_outputs: Counter[str] = field(default_factory=Counter)

    @property
    def deadline(self) -> float | None:
        """Seconds that a request may take."""
        return self.config.request_timeout or None

    def caller(self, request: Request) -> Caller:
        """Who asks; raises ApiError for a key that is not known."""
        caller = self.keys.find(request.headers.get("Authorization"))
        request.state.caller = caller.name
        return caller

    def admin(self, request: Request) -> None:
        """Raises ApiError unless an admin asks."""
        if self.config.admin_key_file is None:
            raise ApiError(
                403, "permission_error", "the server was started without --admin_key_file", code="admin_disabled"
            )
        if not self.caller(request).is_admin:
            raise ApiError(403, "permission_error", "this takes an admin's key", code="admin_key_required")

    def open(self, request: Request, caller: Caller, adapter: Adapter | None, order: Order) -> Call:
        """Has the order computed.

        Raises:
            ApiError: there is no room for it now.
            MindgenError: it is refused.
        """
        name = None if adapter is None else adapter.name
        requests = order.requests()
        lease = self.gate.enter(caller, name, order.num_outputs)
        record = CallRecord(self.metrics, name, len(requests), order.is_streamed, self.config.log_prompts)
        request.state.summary = record.summary
        if adapter is not None:
            adapter.enter()
        self.num_outputs[name or self.catalog.base] += order.num_outputs
        stream = ChunkStream(self.model.llm.server, requests, order.is_streamed)
        return Call(stream, record, lambda: self._leave(adapter, order.num_outputs, lease))

    def _leave(self, adapter: Adapter | None, num_outputs: int, lease: Lease) -> None:
        lease.release()
        self.num_outputs[self.catalog.base if adapter is None else adapter.name] -= num_outputs
        if adapter is not None:
            adapter.leave()

    def busiest(self, adapters: Iterable[str]) -> list[str]:
        """Of these adapters those with the most requests, as many as metrics name."""
        names = sorted({*adapters}, key=lambda name: (-self.num_outputs[name], name))
        return names[: self.config.adapter_labels]

    def note_failure(self, error: Exception) -> None:
        """A model whose processes have ended does not come back."""
        if isinstance(error, WorkerError) and not isinstance(error, ReplicaEndedError):
            self.failure = str(error)
