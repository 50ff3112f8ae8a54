"""What the replicas of a cluster say together."""

import json

from test_metrics import samples

from mindgen.server.protocol.playground import AdapterState, LiveState, ModelShare, Overview, ReplicaState
from mindgen.server.ray.merged import merged_live, merged_metrics, merged_overview

REPLICA = ReplicaState(running=1, waiting=2, kv_blocks=8, kv_blocks_used=3, prompt_tokens=5, generated_tokens=6)


def live(shares: dict[str | None, int], refused: int) -> bytes:
    batch = [ModelShare(name=name, outputs=outputs) for name, outputs in shares.items()]
    return LiveState(replicas=[REPLICA], batch=batch, refused=refused).as_json()


def test_what_the_batches_are_at():
    named = {f"A{number}": 9 - number for number in range(8)}
    found = json.loads(merged_live({0: live(named, 1), 1: live({"B": 9, "A7": 1, None: 4}, 2)}))
    assert found["replicas"] == [REPLICA.model_dump()] * 2 and found["refused"] == 3
    shares = {share["name"]: share["outputs"] for share in found["batch"]}
    assert shares == {"A0": 9, "B": 9, "A1": 8, "A2": 7, "A3": 6, "A4": 5, "A5": 4, "A6": 3, None: 4 + 3}


def overview(*adapters: AdapterState) -> bytes:
    return Overview(
        base="demo", digest="d", max_model_len=512, version="1", can_change=False, adapters=[*adapters]
    ).as_json()


def adapter(name: str, digest: str | None, is_resident: bool, count: int) -> AdapterState:
    return AdapterState(name=name, digest=digest, is_resident=is_resident, requests=count, tokens=count, open=count)


def test_what_adapters_have_done():
    one = overview(adapter("A1", None, False, 0), adapter("A2", "two", True, 3))
    other = overview(adapter("A1", "one", True, 5), adapter("A2", "two", False, 4), adapter("A3", None, False, 0))
    found = Overview.model_validate_json(merged_overview({0: one, 2: other}))
    assert found.adapters == [
        adapter("A1", "one", True, 5), adapter("A2", "two", True, 7), adapter("A3", None, False, 0),
    ]  # fmt: skip
    assert (found.base, found.can_change) == ("demo", False)


def test_metrics_have_their_replicas_place(server):
    page = server.http().get("/metrics").content
    merged = merged_metrics({0: page, 3: page}).decode()
    before, found = samples(page.decode()), samples(merged)
    assert before.keys() == found.keys() and merged.count("# TYPE vllm:prompt_tokens_total counter") == 1
    for name, own in before.items():
        expected = [(each.labels | {"replica": place}, each.value) for place in "03" for each in own]
        assert [(each.labels, each.value) for each in found[name]] == expected
