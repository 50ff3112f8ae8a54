"""What Prometheus collects, under the names that vLLM's dashboards know; what vLLM has no name for is mindgen:...."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from mindgen.engine.metrics import EngineMetrics
from mindgen.loop.replicas import ReplicaState
from mindgen.outputs import RequestOutput
from mindgen.server.observe.adapter_counts import AdapterCounts
from mindgen.server.observe.call_record import CallSummary

_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 600.0,
)  # fmt: skip
_PHASE_SECONDS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
_TOKEN_SECONDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


class ServerMetrics:
    """Belongs to one event loop; is told of calls as CallObserver.

    Args:
        model: the base model's name, the label of all.
        most_adapters: that have a label of their own, as of AdapterCounts.
    """

    def __init__(self, model: str, most_adapters: int) -> None:
        self._model = model
        self._registry = CollectorRegistry()
        self._adapters = AdapterCounts(model, most_adapters)
        self._registry.register(self._adapters)
        self._ttft = self._histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", _SECONDS)
        self._gaps = [
            _TokenGaps(model, "vllm:inter_token_latency_seconds", "Between tokens of an output.", _SECONDS),
            _TokenGaps(model, "vllm:time_per_output_token_seconds", "The same, by its older name.", _TOKEN_SECONDS),
        ]
        for each in self._gaps:
            self._registry.register(each)
        self._per_token = self._histogram(
            "vllm:request_time_per_output_token_seconds", "Of a request, after its first token.", _SECONDS
        )
        self._whole = self._histogram("vllm:e2e_request_latency_seconds", "From arrival to the end.", _SECONDS)
        self._queue = self._histogram(
            "vllm:request_queue_time_seconds", "From arrival to a place in the batch.", _SECONDS
        )
        self._prefill = self._histogram(
            "vllm:request_prefill_time_seconds", "From a place in the batch to the first token.", _PHASE_SECONDS
        )
        self._decode = self._histogram(
            "vllm:request_decode_time_seconds", "From the first token to the last.", _PHASE_SECONDS
        )
        self._prompt = self._histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", _TOKENS)
        self._output = self._histogram("vllm:request_generation_tokens", "Tokens of an output.", _TOKENS)
        self._longest = self._histogram(
            "vllm:request_max_num_generation_tokens", "Tokens of a request's longest output.", _TOKENS
        )
        self._success = self._counter("vllm:request_success", "Outputs that have ended.", "finished_reason")
        self._answers = self._counter("mindgen:http_responses", "Responses, by status.", "status")
        self._gone = self._counter("mindgen:client_disconnects", "Clients that left before the end.")
        self._model_label = {"model_name": model}

    def gap(self, seconds: float, num_tokens: int) -> None:
        for each in self._gaps:
            each.add(seconds / num_tokens, num_tokens)

    def finished(self, output: RequestOutput, adapter_id: str | None) -> None:
        label = self._model_label
        num_tokens = sum(len(each.token_ids) for each in output.outputs)
        self._adapters.add(adapter_id, num_tokens)
        if output.exception is not None:
            self._success.labels(**label, finished_reason="error").inc()
            return
        self._prompt.labels(**label).observe(len(output.prompt_token_ids))
        self._longest.labels(**label).observe(max((len(each.token_ids) for each in output.outputs), default=0))
        for each in output.outputs:
            self._output.labels(**label).observe(len(each.token_ids))
            self._success.labels(**label, finished_reason=each.finish_reason or "abort").inc()
        self._observe_times(output, num_tokens)

    def ended(self, summary: CallSummary) -> None:
        for _ in range(summary.finish_reasons.count("abort")):
            self._success.labels(**self._model_label, finished_reason="abort").inc()

    def client_left(self) -> None:
        self._gone.labels(**self._model_label).inc()

    def answered(self, status: int) -> None:
        self._answers.labels(**self._model_label, status=str(status)).inc()

    def forget_adapter(self, adapter_id: str) -> None:
        """What was counted of it is no longer shown."""
        self._adapters.forget(adapter_id)

    def page(self, collect: Callable[[], Iterable[Metric]]) -> bytes:
        """Everything in Prometheus' text form.

        Args:
            collect: what is asked for at this moment.
        """
        moment = CollectorRegistry()
        moment.register(_Moment(collect))
        return generate_latest(self._registry) + generate_latest(moment)

    def _observe_times(self, output: RequestOutput, num_tokens: int) -> None:
        times, label = output.metrics, self._model_label
        if times is None or times.finished_time is None:
            return
        self._whole.labels(**label).observe(times.finished_time - times.arrival_time)
        if times.scheduled_time is not None:
            self._queue.labels(**label).observe(times.scheduled_time - times.arrival_time)
        if times.first_token_time is not None:
            if times.scheduled_time is not None:
                self._prefill.labels(**label).observe(times.first_token_time - times.scheduled_time)
            self._decode.labels(**label).observe(times.finished_time - times.first_token_time)
            self._ttft.labels(**label).observe(times.first_token_time - times.arrival_time)
            if num_tokens > 1:
                seconds = (times.finished_time - times.first_token_time) / (num_tokens - 1)
                self._per_token.labels(**label).observe(seconds)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ["model_name"], buckets=buckets, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["model_name", *labels], registry=self._registry)


class _TokenGaps:
    """A histogram as prometheus_client's, which would take ten times as long for every token.

    Args:
        model: its label.
    """

    def __init__(self, model: str, name: str, text: str, buckets: tuple[float, ...]) -> None:
        self._model, self._name, self._text, self._buckets = model, name, text, buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def add(self, seconds: float, times: int) -> None:
        self._counts[bisect_left(self._buckets, seconds)] += times
        self._sum += seconds * times

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=["model_name"])
        bounds = [*map(str, self._buckets), "+Inf"]
        family.add_metric([self._model], [*zip(bounds, accumulate(self._counts), strict=True)], self._sum)
        yield family


class _Moment:
    """A collector of prometheus_client's for what is known already."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def engine_families(model: str, engines: Mapping[int, EngineMetrics]) -> Iterator[Metric]:
    """What the replicas are at, each with its number as `engine`."""
    now = (
        ("vllm:num_requests_running", "Sequences in the batch.", lambda each: each.requests_running),
        ("vllm:num_requests_waiting", "Requests that have not run yet.", lambda each: each.requests_waiting),
        ("vllm:kv_cache_usage_perc", "Share of the KV cache's blocks in use.", _cache_usage),
        ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc, by its older name.", _cache_usage),
        ("mindgen:adapter_slots", "Places for adapters in the network's memory.", lambda each: each.adapters.slots),
        ("mindgen:adapter_slots_used", "Those that hold one.", lambda each: each.adapters.slots_in_use),
        ("mindgen:adapter_host_bytes", "Of adapters in host memory.", lambda each: each.adapters.host_bytes),
    )
    since_start = (
        ("vllm:prompt_tokens", "Tokens of prompts.", lambda each: each.prompt_tokens),
        ("vllm:generation_tokens", "Tokens that were generated.", lambda each: each.generated_tokens),
        ("vllm:prefix_cache_queries", "Tokens looked for in the prefix cache.", lambda each: each.prompt_tokens),
        ("vllm:prefix_cache_hits", "Tokens found there.", lambda each: each.cached_prompt_tokens),
        ("vllm:num_preemptions", "Sequences that had to wait again.", lambda each: each.preemptions),
        ("mindgen:adapter_loads", "Adapters brought into a place.", lambda each: each.adapters.loads),
        ("mindgen:adapter_evictions", "Adapters that made way.", lambda each: each.adapters.evictions),
    )
    for kind, rows in ((GaugeMetricFamily, now), (CounterMetricFamily, since_start)):
        for name, text, value in rows:
            family = kind(name, text, labels=["model_name", "engine"])
            for number, each in engines.items():
                family.add_metric([model, str(number)], value(each))
            yield family


def _cache_usage(metrics: EngineMetrics) -> float:
    return metrics.kv_blocks_used / metrics.kv_blocks


def replica_families(model: str, state: ReplicaState) -> Iterator[Metric]:
    """Which replicas serve."""
    now = (
        ("mindgen:replicas", "Replicas of the model.", state.wanted),
        ("mindgen:replicas_lost", "Those that have ended and do not serve now.", len(state.lost)),
    )
    for name, text, value in now:
        gauge = GaugeMetricFamily(name, text, labels=["model_name"])
        gauge.add_metric([model], value)
        yield gauge
    ends = CounterMetricFamily("mindgen:replica_ends", "How often a replica has ended.", labels=["model_name"])
    ends.add_metric([model], state.num_ends)
    yield ends


def server_families(
    model: str, num_open: int, num_refused: int, adapters: tuple[list[str], list[str]], slots: int
) -> Iterator[Metric]:
    """What the server is at.

    Args:
        adapters: of requests that run, and of requests that wait.
        slots: adapters in memory at once, at most.
    """
    lora = GaugeMetricFamily(
        "vllm:lora_requests_info",
        "Which adapters have requests.",
        labels=["model_name", "max_lora", "running_lora_adapters", "waiting_lora_adapters"],
    )
    lora.add_metric([model, str(slots), *map(",".join, adapters)], 1)
    yield lora
    opened = GaugeMetricFamily("mindgen:requests_open", "Outputs that are computed or wait.", labels=["model_name"])
    opened.add_metric([model], num_open)
    yield opened
    refused = CounterMetricFamily("mindgen:requests_refused", "For want of room (429).", labels=["model_name"])
    refused.add_metric([model], num_refused)
    yield refused
