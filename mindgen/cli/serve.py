"""`mindgen serve`: OpenAI's API over HTTP, with every adapter as a model of its own."""

import argparse
import sys
import webbrowser
from importlib.util import find_spec

from mindgen.cli import flags
from mindgen.cli.launched import closing, take_part
from mindgen.errors import ConfigError
from mindgen.server.config import ServerConfig, ServeSettings
from mindgen.settings import GenerationSettings, read_settings
from mindgen.system.documented_fields import documented_fields
from mindgen.system.memory import keep_heap
from mindgen.system.yaml_file import read_yaml_file

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapters", dest="model.pet_config.adapter_path", metavar="PATH", help="another name of --adapter_path"
    )
    parser.add_argument("--open", action="store_true", help="open the browser when it listens")
    group = parser.add_argument_group("the server")
    for name, option in documented_fields(ServerConfig).items():
        flags.add_option(group, name, f"server.{name}", option)
    flags.add_model_arguments(parser)
    flags.add_engine_arguments(parser)


def run(arguments: argparse.Namespace, started: float) -> int:
    """Serves until SIGTERM or SIGINT.

    Raises:
        MindgenError: it cannot begin; nothing has been loaded for a mistake in flags, key files or the port.
    """
    _check_installed()
    raw = {} if arguments.config is None else read_yaml_file(arguments.config)
    part, settings = take_part(read_settings(ServeSettings, raw, flags.overrides(arguments, ServeSettings)))
    if settings.on_missing_adapter != "error":
        raise ConfigError("on_missing_adapter must be error: a server answers by the model that was asked for, or not")
    if settings.engine.node_rank > 0:
        return flags.serve_if_worker(settings) or 0
    busy = part.busy(settings, settings.engine.data_parallel_size)
    if busy is None:
        return 0
    exit_code = flags.serve_if_worker(busy)
    return _serve(busy, arguments.open) if exit_code is None else exit_code


def _serve(settings: ServeSettings, opens_browser: bool) -> int:
    from mindgen.server.adapters.names import check_names
    from mindgen.server.outside import read_outside  # with all that follows, what the serve extra brings
    from mindgen.server.run import address_of, bind, serve

    config = settings.server
    generation = flags.generation_settings(settings)
    if config.weight_socket is not None and settings.engine.data_parallel_size > 1:
        raise ConfigError("weight_socket goes with a data_parallel_size of 1: weights of replicas cannot change yet")
    outside = read_outside(config, lambda line: print(line, file=sys.stderr, flush=True))
    if config.runner == "ray":
        return _serve_on_ray(settings, generation, opens_browser)
    with bind(config) as bound:
        files, limits = flags.model_files(settings)
        name = config.served_model_name or settings.model.path
        check_names(name, files.registry().names())
        from mindgen.llm import LLM  # starts MindSpore, which mistakes need not wait for
        from mindgen.server.assemble import assemble
        from mindgen.server.model import ServedModel

        llm = LLM(files.model, files.adapters, settings.model.dtype, limits, checkpoint=files.checkpoint)
        with closing(llm):
            model = ServedModel.of(llm, files, name, generation, limits)
            app = assemble(model, config, outside)

            def announce() -> None:
                address = address_of(bound)
                print(f"mindgen: {name} and {len(llm.adapter_ids)} adapter(s) at {address}", flush=True)
                if opens_browser:
                    webbrowser.open(address)

            keep_heap()
            serve(app, bound, config.drain_timeout, announce)
        llm.close()
    return 0


def _serve_on_ray(settings: ServeSettings, generation: GenerationSettings, opens_browser: bool) -> int:
    from mindgen.server.adapters.names import check_names
    from mindgen.server.ray.replica import ReplicaOrder
    from mindgen.server.ray.run import check_ray_config, serve_on_ray
    from mindgen.server.run import address_of, bind

    config = settings.server
    files, limits = flags.model_files(settings)
    name = config.served_model_name or settings.model.path
    check_names(name, files.registry().names())
    order = ReplicaOrder(files, settings.model.dtype, limits, name, generation, config)
    check_ray_config(order)
    with bind(config) as bound:  # it is free, and is Ray's from now on
        address, port = address_of(bound), bound.getsockname()[1]

    def announce() -> None:
        print(f"mindgen: {name} with {limits.data_parallel_size} replica(s) on Ray at {address}", flush=True)
        if opens_browser:
            webbrowser.open(address)

    serve_on_ray(order, config.host, port, announce)
    return 0


def _check_installed() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"mindgen serve needs {', '.join(missing)}: pip install 'mindgen[serve]'")
