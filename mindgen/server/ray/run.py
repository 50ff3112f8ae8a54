"""Has Ray Serve keep replicas of the model on the machines of a cluster, behind one port, until it is told to end."""

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from mindgen.batch.ray_cluster import cluster, one_line, replica_needs
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError, ModelError
from mindgen.server.ray.affinity import Affinity
from mindgen.server.ray.ingress import Ingress
from mindgen.server.ray.replica import ReplicaOrder, ServedReplica
from mindgen.system.environment import raised_termination

_APPLICATION = "mindgen"
_SPARE = 64  # calls beyond those that a replica has room for, like looks at its health
_MOST_CALLS = 100_000  # at once, of which replicas refuse those that they have no room for
_HEALTH_SECONDS = 5.0
_STUCK_SECONDS = 120.0  # without a word on its health; that its process has ended shows at once
# MindSpore's messages are too old for protobuf's own C++, and Ray Serve imports protobuf first.
_FOR_MINDSPORE = {"env_vars": {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}}
_ERROR = re.compile(r"^[\w.]*(?:Error|Exception): (.*)$", re.MULTILINE)


def check_ray_config(order: ReplicaOrder) -> None:
    """Raises ConfigError where something is asked for that replicas on several machines do not do."""
    config = order.config
    if order.limits.nnodes > 1:
        raise ConfigError("runner ray places replicas itself: leave nnodes out, and say --dp N")
    for name in ("admin_key_file", "weight_socket", "weight_roots", "adapter_roots"):
        if getattr(config, name):
            raise ConfigError(
                f"{name} goes with runner local: replicas on several machines take adapters from --adapter_folder, "
                "which all of them see"
            )


def serve_on_ray(order: ReplicaOrder, host: str, port: int, announce: Callable[[], None]) -> None:
    """Until SIGTERM or SIGINT: then what is under way is answered.

    Args:
        host, port: where the machine of the cluster's head listens.
        announce: is called when all replicas serve.

    Raises:
        ConfigError: Ray Serve is not installed, or the cluster has no room.
        ModelError: the replicas have not come up.
    """
    is_up = False
    with cluster() as ray:
        serve = _ray_serve()
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        application = _application(serve, order, _needs(order.limits, machines))
        if serve.status().proxies:
            raise ConfigError("Ray Serve has a port on this cluster already: end it there with `serve shutdown`")
        try:
            with raised_termination():
                logging.getLogger("ray.serve").setLevel(logging.WARNING)
                serve.start("HeadOnly", {"host": host, "port": port})
                serve.run(application, name=_APPLICATION)
                is_up = True
                announce()
                threading.Event().wait()
        except KeyboardInterrupt:
            if not is_up:
                raise
            serve.delete(_APPLICATION)  # which lets replicas answer what they have
        except (RuntimeError, ValueError, OSError) as error:
            why = _why_not(serve.status()) or one_line(error)
            raise ModelError(f"the replicas have not come up: {why}") from error
        finally:
            serve.shutdown()


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise ConfigError(f"runner ray needs Ray Serve ({error}): pip install 'mindgen[ray_serve]'") from error
    return serve


def _needs(limits: EngineConfig, machines: list[dict[str, float]]) -> dict[str, int]:
    """Of a replica; raises ConfigError where all machines together have no room for as many as are wanted."""
    needs = replica_needs(limits, machines)
    places = sum(min(int(machine.get(name, 0) // amount) for name, amount in needs.items()) for machine in machines)
    if places < limits.data_parallel_size:
        raise ConfigError(
            f"the Ray cluster has room for {places} replica(s), which need {needs} each, and data_parallel_size is "
            f"{limits.data_parallel_size}: add machines, or lower --dp or --num_threads"
        )
    return needs


def _application(serve: Any, order: ReplicaOrder, needs: dict[str, int]) -> Any:
    """The replicas, and what shares requests out over them."""
    from mindgen.server.ray.places import PlaceRouter

    config, count, room = order.config, order.limits.data_parallel_size, order.limits.max_num_seqs
    others = {name: amount for name, amount in needs.items() if name != "CPU"}
    replicas = serve.deployment(
        ServedReplica,
        num_replicas=count,
        ray_actor_options={"num_cpus": needs["CPU"], "resources": others, "runtime_env": _FOR_MINDSPORE},
        max_ongoing_requests=room + config.max_queue + _SPARE,
        graceful_shutdown_timeout_s=config.drain_timeout,
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=_STUCK_SECONDS,
        request_router_config={"request_router_class": PlaceRouter},
    )
    ingress = serve.deployment(
        Ingress,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_MOST_CALLS,
        graceful_shutdown_timeout_s=config.drain_timeout,
    )
    return ingress.bind(replicas.bind(order), Affinity(order.name, count, room), config.max_body_bytes)


def _why_not(status: Any) -> str | None:
    """What has kept a replica from coming up, in a line."""
    deployments = [each for application in status.applications.values() for each in application.deployments.values()]
    found = [line for each in deployments for line in _ERROR.findall(each.message)]
    return found[-1] if found else None
