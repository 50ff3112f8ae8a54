"""What the page shows of the server, beside what /v1/models says."""

from collections.abc import Sequence

from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.engine.metrics import EngineMetrics
from mindgen.server.protocol.playground import (
    MOST_NAMED,
    AdapterState,
    LiveState,
    ModelShare,
    Overview,
    ReplicaState,
)
from mindgen.server.service import Service


def live_state(service: Service, replicas: Sequence[EngineMetrics]) -> LiveState:
    open_outputs = +service.num_outputs  # without those that have none
    named = open_outputs.most_common(MOST_NAMED)
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
