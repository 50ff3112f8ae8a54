"""What all replicas answer together, where each knows its own part alone."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from mindgen.server.protocol.playground import MOST_NAMED, AdapterState, LiveState, ModelShare, Overview

# By the places of the replicas that have answered; one at least.
Bodies: TypeAlias = Mapping[int, bytes]


def merged_live(bodies: Bodies) -> bytes:
    states = [LiveState.model_validate_json(body) for body in bodies.values()]
    outputs: Counter[str] = Counter()
    others = 0
    for share in (share for state in states for share in state.batch):
        if share.name is None:
            others += share.outputs
        else:
            outputs[share.name] += share.outputs
    named = outputs.most_common(MOST_NAMED)
    others += outputs.total() - sum(count for _, count in named)
    batch = [ModelShare(name=name, outputs=count) for name, count in named]
    if others:
        batch.append(ModelShare(name=None, outputs=others))
    replicas = [each for state in states for each in state.replicas]
    return LiveState(replicas=replicas, batch=batch, refused=sum(state.refused for state in states)).as_json()


def merged_overview(bodies: Bodies) -> bytes:
    overviews = [Overview.model_validate_json(body) for body in bodies.values()]
    adapters: dict[str, AdapterState] = {}
    for each in (each for found in overviews for each in found.adapters):
        before = adapters.get(each.name)
        adapters[each.name] = each if before is None else _both(before, each)
    return overviews[0].model_copy(update={"adapters": [*adapters.values()]}).as_json()


def _both(one: AdapterState, other: AdapterState) -> AdapterState:
    return AdapterState(
        name=one.name, digest=one.digest or other.digest, is_resident=one.is_resident or other.is_resident,
        requests=one.requests + other.requests, tokens=one.tokens + other.tokens, open=one.open + other.open,
    )  # fmt: skip


def merged_metrics(bodies: Bodies) -> bytes:
    """Each sample with the place of its replica, as the label `replica`."""
    families: dict[str, Metric] = {}
    for place, body in bodies.items():
        for family in text_string_to_metric_families(body.decode()):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            whole.samples += [
                sample._replace(labels=sample.labels | {"replica": str(place)}) for sample in family.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


class _Families:
    """A collector of prometheus_client's for what is known already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


MERGED: dict[str, Callable[[Bodies], bytes]] = {
    "/playground/live": merged_live,
    "/playground/overview": merged_overview,
    "/metrics": merged_metrics,
}
