"""Puts the parts of the server together."""

from fastapi import FastAPI

from mindgen.rlhf.receiver import WeightReceiver
from mindgen.server.adapters.catalog import Catalog
from mindgen.server.adapters.digests import AdapterDigests
from mindgen.server.adapters.life_cycle import AdapterLifeCycle
from mindgen.server.adapters.watcher import AdapterWatcher
from mindgen.server.app import make_app
from mindgen.server.config import ServerConfig
from mindgen.server.limits.gate import Gate
from mindgen.server.limits.keys import Limits
from mindgen.server.model import ServedModel
from mindgen.server.observe.metrics import ServerMetrics
from mindgen.server.observe.tracing import Tracing
from mindgen.server.outside import Outside
from mindgen.server.service import Service
from mindgen.server.weights import ServedWeights


def assemble(model: ServedModel, config: ServerConfig, outside: Outside) -> FastAPI:
    """
    Raises:
        ConfigError: an adapter has a name that is not for adapters.
    """
    name = model.identity.name
    catalog = Catalog(name, model.llm.adapter_ids)
    metrics = ServerMetrics(name, config.adapter_labels)
    life_cycle = AdapterLifeCycle(model.llm, catalog, metrics)
    limits = Limits(config.adapter_requests_per_minute, config.adapter_concurrency)
    gate = Gate(model.num_sequences + config.max_queue, limits)
    write_log = outside.say if config.access_log else None
    weights = ServedWeights(model.llm, name, life_cycle)
    service = Service(
        config, model, catalog, life_cycle, AdapterDigests(model.llm.list_adapters), outside.roots, weights,
        outside.weight_roots, outside.keys, gate, metrics, write_log,
    )  # fmt: skip
    watcher = None
    if config.adapter_folder is not None:
        watcher = AdapterWatcher(config.adapter_folder, config.adapter_scan_seconds, life_cycle, outside.say)
    receiver = None if config.weight_socket is None else WeightReceiver(weights, config.weight_socket)
    return make_app(service, watcher, receiver, Tracing(config.trace_endpoint))
