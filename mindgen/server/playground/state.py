"""What the page shows of the server, beside what /v1/models says."""

from collections.abc import Sequence

from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.engine.metrics import EngineMetrics
from mindgen.server.protocol.body import ResponseBody
from mindgen.server.service import Service

_MOST_NAMED = 8  # adapters of the batch


class ReplicaState(ResponseBody):
    """
    Attributes:
        running: sequences in the batch.
        waiting: requests that have not run yet.
        kv_blocks: of the KV cache, in all.
        prompt_tokens, generated_tokens: since the start.
    """

    running: int
    waiting: int
    kv_blocks: int
    kv_blocks_used: int
    prompt_tokens: int
    generated_tokens: int


class ModelShare(ResponseBody):
    """Outputs of a model that are computed or wait; `name` is None for all models that are not named."""

    name: str | None
    outputs: int


class LiveState(ResponseBody):
    """A moment.

    Attributes:
        batch: by model, the busiest first.
        refused: requests, for want of room, since the start.
    """

    replicas: list[ReplicaState]
    batch: list[ModelShare]
    refused: int


class AdapterState(ResponseBody):
    """
    Attributes:
        digest: None for an adapter that nobody has used, and whose files have not been read yet.
        is_resident: whether it is in the network's memory.
        requests, tokens: since the start.
        open: requests that have it now.
    """

    name: str
    digest: str | None
    is_resident: bool
    requests: int
    tokens: int
    open: int


class Overview(ResponseBody):
    """The base model and its adapters.

    Attributes:
        can_change: whether the server takes an admin's key at all.
    """

    base: str
    digest: str
    max_model_len: int
    version: str
    can_change: bool
    adapters: list[AdapterState]


def live_state(service: Service, replicas: Sequence[EngineMetrics]) -> LiveState:
    open_outputs = +service.num_outputs  # without those that have none
    named = open_outputs.most_common(_MOST_NAMED)
    shares = [ModelShare(name=name, outputs=count) for name, count in named]
    others = open_outputs.total() - sum(count for _, count in named)
    if others:
        shares.append(ModelShare(name=None, outputs=others))
    return LiveState(replicas=[_replica(each) for each in replicas], batch=shares, refused=service.gate.num_refused)


def overview(service: Service, listed: Sequence[AdapterStatus], version: str) -> Overview:
    """
    Args:
        listed: what the model has of each adapter.
    """
    model, adapters = service.model, []
    statuses = {status.adapter_id: status for status in listed}
    for each in service.catalog.adapters():
        status = statuses.get(each.name)
        if status is not None:
            adapters.append(
                AdapterState(
                    name=each.name, digest=service.digests.known(status), is_resident=status.is_resident,
                    requests=status.requests, tokens=status.tokens, open=each.num_users,
                )
            )  # fmt: skip
    return Overview(
        base=model.identity.name, digest=model.identity.digest, max_model_len=model.llm.max_model_len,
        version=version, can_change=service.config.admin_key_file is not None,
        adapters=adapters,
    )  # fmt: skip


def _replica(metrics: EngineMetrics) -> ReplicaState:
    return ReplicaState(
        running=metrics.requests_running, waiting=metrics.requests_waiting, kv_blocks=metrics.kv_blocks,
        kv_blocks_used=metrics.kv_blocks_used, prompt_tokens=metrics.prompt_tokens,
        generated_tokens=metrics.generated_tokens,
    )  # fmt: skip
