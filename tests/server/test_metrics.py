"""What Prometheus finds."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_process import ROOT

from mindgen.outputs import CompletionOutput, RequestOutput
from mindgen.server.observe.metrics import ServerMetrics

VLLM = (
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries_total",
    "prefix_cache_hits_total", "prompt_tokens_total", "generation_tokens_total", "time_to_first_token_seconds_bucket",
    "inter_token_latency_seconds_bucket", "e2e_request_latency_seconds_bucket", "request_queue_time_seconds_bucket",
    "request_success_total", "num_preemptions_total", "lora_requests_info", "request_prefill_time_seconds_bucket",
    "request_decode_time_seconds_bucket", "request_max_num_generation_tokens_bucket",
    "time_per_output_token_seconds_bucket",
)  # fmt: skip


def samples(page: str) -> dict[str, list]:
    found: dict[str, list] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_vllms_names(server, client):
    list(client.completions.create(model="A2", prompt="One, two,", max_tokens=5, stream=True))
    found = samples(server.http().get("/metrics").text)
    for name in VLLM:
        assert found[f"vllm:{name}"] and all(each.labels["model_name"] == "demo" for each in found[f"vllm:{name}"])
    assert any(each.labels["adapter"] == "A2" and each.value >= 1 for each in found["mindgen:adapter_requests_total"])


def test_plain_answers_are_measured_as_streams_are(server, client):
    """Three outputs of five tokens; the time between these is what is left of the request's after its first."""
    server.wait_for(lambda: server.metric("mindgen:requests_open") == 0)
    names = [
        f"vllm:{name}_{what}"
        for name in (
            "inter_token_latency_seconds", "time_per_output_token_seconds", "request_decode_time_seconds",
            "request_prefill_time_seconds", "request_max_num_generation_tokens",
        )
        for what in ("count", "sum")
    ]  # fmt: skip
    before = [server.metric(name) for name in names]
    client.completions.create(
        model="demo", prompt="One, two,", max_tokens=5, n=3, temperature=1, extra_body={"ignore_eos": True}
    )
    found = [now - was for now, was in zip(map(server.metric, names), before, strict=True)]
    assert found[::2] == [12, 12, 1, 1, 1] and all(found[1::2])
    decode = found[5]
    assert found[1] == pytest.approx(3 * decode) and found[3] == pytest.approx(3 * decode) and found[9] == 5


def test_the_dashboard_asks_for_what_there_is(server):
    found = samples(server.http().get("/metrics").text)
    dashboard = json.loads((ROOT / "deploy/grafana_dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for each in asked for name in re.findall(r"(?:vllm|mindgen):\w+", each)}
    assert len(names) > 10 and names <= found.keys()


def test_adapters_that_run_and_that_wait(server, client):
    """Eight run at once: the ninth waits."""

    def adapters() -> tuple[str, str]:
        (sample,) = samples(server.http().get("/metrics").text)["vllm:lora_requests_info"]
        return sample.labels["running_lora_adapters"], sample.labels["waiting_lora_adapters"]

    server.wait_for(lambda: adapters() == ("", ""))
    asked = {
        "prompt": "One, two,",
        "max_tokens": 450,
        "stream": True,
        "temperature": 2,
        "extra_body": {"ignore_eos": True},
    }
    running = client.completions.create(model="A2", n=8, **asked)
    next(running)
    waiting = ThreadPoolExecutor(1).submit(lambda: next(client.completions.create(model="A3", **asked)))
    server.wait_for(lambda: adapters() == ("A2", "A3"))
    running.close()
    assert waiting.result(30).choices
    server.wait_for(lambda: adapters() == ("", ""))


@pytest.fixture
def metrics():
    return ServerMetrics("demo", 2)


def ask(metrics, adapter_id: str | None, times: int) -> None:
    output = RequestOutput(0, "p", [1], [CompletionOutput(0, "t", [2, 3], finish_reason="stop")], True, None)
    for _ in range(times):
        metrics.finished(output, adapter_id)


def counts(metrics) -> dict[str, float]:
    found = samples(metrics.page(lambda: []).decode())
    by_name = [
        {each.labels["adapter"]: each.value for each in found.get(f"mindgen:adapter_{what}_total", [])}
        for what in ("requests", "generation_tokens")
    ]
    assert by_name[1] == {name: 2 * value for name, value in by_name[0].items()}
    return by_name[0]


def test_labels_are_those_with_the_most_requests(metrics):
    for adapter, times in (("A1", 3), ("A2", 2), ("A3", 60), (None, 4)):
        ask(metrics, adapter, times)
    assert counts(metrics) == {"A3": 60, "A1": 3, "other": 2, "base": 4}


def test_counters_never_fall(metrics):
    ask(metrics, "A1", 3), ask(metrics, "A2", 2), ask(metrics, "A3", 1)
    assert counts(metrics) == {"A1": 3, "A2": 2, "other": 1}
    ask(metrics, "A3", 9)
    assert counts(metrics) == {"A1": 3, "A3": 9, "other": 1}
    ask(metrics, "A2", 2), ask(metrics, "A1", 1)
    assert counts(metrics) == {"A1": 4, "A3": 9, "other": 3}
    ask(metrics, "A2", 7)
    assert counts(metrics) == {"A2": 9, "A3": 9, "other": 3}


def test_labels_are_bounded(metrics):
    for number in range(2000):
        ask(metrics, f"adapter {number}", 1)
    assert counts(metrics) == {"adapter 0": 1, "adapter 1": 1, "other": 1998}
    for number in (1, 1999):
        metrics.forget_adapter(f"adapter {number}")
    ask(metrics, "adapter 2000", 2)
    assert counts(metrics) == {"adapter 2000": 2, "adapter 0": 1, "other": 1998}


def test_no_labels_are_none():
    metrics = ServerMetrics("demo", 0)
    ask(metrics, "A1", 3)
    assert counts(metrics) == {"other": 3}
