"""OpenTelemetry's traces: a span for each request, which FastAPI makes, with what the request has cost."""

from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from mindgen.errors import ConfigError
from mindgen.server.observe.call_record import CallSummary
from mindgen.system.checks import shown


class Tracing:
    """
    Args:
        endpoint: where spans go, by OTLP over HTTP; None for no traces.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._provider: Any = None if endpoint is None else _provider(endpoint)

    def config(self) -> TelemetryConfig:
        """FastAPI's, whose own metrics and logs are off: the server has others."""
        return {
            "tracer_provider": self._provider, "tracing": self._provider is not None, "metrics": False, "logs": False,
            "operation_spans": False, "auto_configure": False,
        }  # fmt: skip

    def close(self) -> None:
        """Sends what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


def annotate(request_id: str, summary: CallSummary | None) -> None:
    """Says in the request's span, if there is one, what is known at its end; by the names of GenAI's conventions."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    span.set_attribute("mindgen.request_id", request_id)
    if summary is not None:
        span.set_attribute("gen_ai.request.model", summary.adapter_id or "base")
        span.set_attribute("gen_ai.usage.input_tokens", summary.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", summary.completion_tokens)
        span.set_attribute("gen_ai.response.finish_reasons", summary.finish_reasons)


def check_tracing(endpoint: str) -> None:
    """Raises ConfigError where it is no address, or OpenTelemetry's packages are not there; nothing is imported yet."""
    if not _is_address(endpoint):
        expected = "an address like http://localhost:4318/v1/traces"
        raise ConfigError(f"server: trace_endpoint must be {expected}, not {shown(endpoint)}")
    try:
        is_there = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        is_there = None
    if is_there is None:
        raise ConfigError("server: trace_endpoint needs OpenTelemetry: pip install 'mindgen[otel]'")


def _is_address(text: str) -> bool:
    try:
        found = urlsplit(text)
        return found.scheme in ("http", "https") and bool(found.hostname) and (found.port is None or found.port > 0)
    except ValueError:  # a port, or an address in brackets, that is none
        return False


def _provider(endpoint: str) -> Any:
    # They import protobuf, which MindSpore's messages are too old for unless MindSpore comes first and says so.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "mindgen"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider
