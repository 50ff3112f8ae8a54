"""What the server is told, beside the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mindgen.errors import ConfigError
from mindgen.settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where it listens, who may ask, and for how much.

    Attributes:
        runner: "local", or "ray" for --dp replicas on the machines of a Ray cluster.
        host: the address to listen at; 0.0.0.0 is all of this machine's.
        port: 0 takes a free one, which the first line says.
        served_model_name: what clients call the base model; None is what --model says.
        api_key_file: a key a line, with its limits; None lets everybody ask.
        admin_key_file: the keys that may change adapters and weights; None lets nobody.
        adapter_roots: the folders below which adapters may be loaded from.
        weight_roots: the folders below which new weights may be loaded from, by /update_weights.
        weight_socket: a socket by which this user's processes of this machine may send weights (WeightSender).
        adapter_folder: a folder whose subfolders are adapters, as they come, change and go.
        adapter_scan_seconds: between two looks at it.
        max_queue: requests that wait beyond those that are computed; more are told to come again (429).
        adapter_concurrency: requests of one adapter at once; None is any number.
        adapter_requests_per_minute: of one adapter; None is any number.
        max_body_bytes: of a request.
        request_timeout: seconds from a request's arrival to its last token; 0 is any time.
        send_timeout: seconds that a client may not take what is sent to it; 0 is any time.
        drain_timeout: seconds that SIGTERM leaves to what is under way; 0 is any time.
        adapter_labels: adapters that the metrics name, those with the most requests; the others are one, "other".
        log_prompts: have the access log hold prompts and answers.
        access_log: write a line of JSON for each request to standard error.
        trace_endpoint: where OpenTelemetry's traces go, by OTLP over HTTP, like http://localhost:4318/v1/traces.

    Raises:
        ConfigError: a value is out of its range.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    runner: Literal["local", "ray"] = "local"
    host: str = "127.0.0.1"
    port: int = 8000
    served_model_name: str | None = None
    api_key_file: str | None = None
    admin_key_file: str | None = None
    adapter_roots: Sequence[str] = ()
    weight_roots: Sequence[str] = ()
    weight_socket: str | None = None
    adapter_folder: str | None = None
    adapter_scan_seconds: float = 2.0
    max_queue: int = 256
    adapter_concurrency: int | None = None
    adapter_requests_per_minute: float | None = None
    max_body_bytes: int = 16 * 2**20
    request_timeout: float = 600.0
    send_timeout: float = 60.0
    drain_timeout: float = 60.0
    adapter_labels: int = 20
    log_prompts: bool = False
    access_log: bool = True
    trace_endpoint: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"server: port must be 0 to 65535, not {self.port}")
        if not self.host:
            raise ConfigError("server: host must be an address, like 127.0.0.1")
        for name in ("max_queue", "adapter_labels"):
            if getattr(self, name) < 0:
                raise ConfigError(f"server: {name} must be 0 or more, not {getattr(self, name)}")
        for name in ("request_timeout", "send_timeout", "drain_timeout"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"server: {name} must be 0 or more seconds, not {getattr(self, name)}")
        for name in ("adapter_scan_seconds", "adapter_requests_per_minute", "adapter_concurrency", "max_body_bytes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"server: {name} must be above 0, not {value}")


class ServeSettings(RunSettings):
    """A whole configuration file of `mindgen serve`; `generation` is for requests that say nothing else."""

    server: ServerConfig = ServerConfig()
