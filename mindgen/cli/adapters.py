"""`mindgen adapters`: look at adapters, check, convert, merge and compare them. Needs no MindSpore."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mindgen.adapters.base_mark import check_base
from mindgen.adapters.base_model import BaseModel
from mindgen.adapters.formats.peft import Adapter, read_adapter
from mindgen.adapters.loader import fit_adapter, lora_pair
from mindgen.adapters.registry import AdapterRegistry
from mindgen.adapters.tools.convert import MINDFORMERS_HALVES, convert_adapter
from mindgen.adapters.tools.merge import merge_adapter
from mindgen.adapters.tools.merge_plan import try_merge
from mindgen.cli.adapter_tables import (
    print_adapter,
    print_differences,
    print_list,
    print_problems,
)
from mindgen.errors import AdapterError, ModelError
from mindgen.loop.model_files import DEFAULT_MODEL
from mindgen.store.embedded import adapter_folder
from mindgen.store.find_model import find_model
from mindgen.weights.architecture import read_model_config
from mindgen.weights.folder import map_weights, warn_of_two_checkpoints
from mindgen.weights.network_names import linear_modules, network_weights
from mindgen.weights.weight_files import WeightFiles

_PATHS = "a lora_adapter.json, a YAML configuration, or a folder (default: the demo's)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands and their flags."""
    commands = parser.add_subparsers(dest="action", required=True)

    def add(name: str, text: str, *adapters: str) -> Callable[..., Any]:
        command = commands.add_parser(name, help=text)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        for adapter in adapters:
            command.add_argument(adapter, metavar="ADAPTER", help="its folder, or its name")
        if adapters:
            command.add_argument("--adapter_path", type=Path, metavar="PATH", help=f"where names are: {_PATHS}")
        return command.add_argument

    option = add("list", "the adapters of a lora_adapter.json, or of a folder")
    option("path", type=Path, nargs="?", help=_PATHS)
    add("inspect", "what an adapter changes, and with what", "adapter")
    option = add("verify", "whether an adapter fits a model and is served", "adapter")
    option("--model", required=True, metavar="NAME", help="a model's folder or file, or its name")
    option = add("convert", "write an adapter in PEFT's or MindFormers' format", "adapter")
    option("--to", choices=["peft", "mindformers"], required=True)
    option("--names", choices=list(MINDFORMERS_HALVES), default="slora", help="of MindFormers' tensors")
    option("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    option = add("merge", "write a model with the adapter in it", "adapter")
    option("--model", required=True, metavar="NAME", help="a model's folder or file, or its name")
    option("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    add("diff", "how far two adapters differ", "adapter", "other")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Does what the sub-command says.

    Raises:
        MindgenError: of whatever part refused.
    """
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list, "inspect": _inspect, "verify": _verify, "convert": _convert, "merge": _merge, "diff": _diff,
    }  # fmt: skip
    actions[arguments.action](arguments)
    return 0


def _list(arguments: argparse.Namespace) -> None:
    registry = _registry(arguments.path)
    folders = {version.adapter_id: version.folder for version in registry.versions()}
    adapters: dict[str, Adapter | AdapterError] = {}
    for name, folder in folders.items():
        try:
            adapters[name] = read_adapter(folder)
        except AdapterError as error:
            adapters[name] = error
    print_list(folders, adapters)
    unread = [name for name, adapter in adapters.items() if isinstance(adapter, AdapterError)]
    if unread:
        raise AdapterError(f"{len(unread)} of {len(adapters)} adapters cannot be read: {', '.join(unread[:8])}")


def _registry(path: Path | None) -> AdapterRegistry:
    """Of a list, of the configuration that names one, or of all adapters right in a folder; the demo's by default."""
    if path is None:
        path = adapter_folder()
    if path.suffix in (".yaml", ".yml"):
        from mindgen.settings import load_settings

        settings = load_settings(path, {}).model
        default = adapter_folder() if settings.path == DEFAULT_MODEL else Path(settings.path)
        path = default if settings.pet_config.adapter_path is None else Path(settings.pet_config.adapter_path)
    return AdapterRegistry.read(path)


def _inspect(arguments: argparse.Namespace) -> None:
    print_adapter(_read(arguments, arguments.adapter))


def _verify(arguments: argparse.Namespace) -> None:
    adapter = _read(arguments, arguments.adapter)
    model = find_model(arguments.model)
    warn_of_two_checkpoints(model)
    problems = try_merge(model, adapter, map_weights(model)).problems
    for module, update in adapter.updates.items():
        try:
            lora_pair(str(adapter.folder), module, update)
        except AdapterError as error:
            problems.append(str(error))
    print_problems(adapter, problems, _refusal(adapter, model))
    if problems:
        raise AdapterError(f"{adapter.folder} does not fit {arguments.model}: {len(problems)} problem(s)")


def _refusal(adapter: Adapter, model: Path) -> str | None:
    """Why no batch of the model can have the adapter, if so."""
    try:
        config, files = read_model_config(model), WeightFiles(model, (model,))
        tied = config.tie_word_embeddings and not files.has_own_head()
        weights = network_weights(model, files.map(0))
        modules = linear_modules({name: tensor.shape for name, tensor in weights.items()}, tied)
        base = BaseModel(model, weights, files.choose_dtype(config.dtype), tied)
        check_base(adapter.folder.name, adapter.folder, base)
        fit_adapter(adapter.folder.name, adapter, modules, base)
    except (AdapterError, ModelError) as error:
        return str(error)
    return None


def _convert(arguments: argparse.Namespace) -> None:
    adapter = _read(arguments, arguments.adapter)
    convert_adapter(adapter, arguments.output, arguments.to, arguments.names)
    digest = read_adapter(arguments.output).digest
    same = "the same digest" if digest == adapter.digest else "another digest: scalings went into B, in float32"
    print(f"{arguments.output}: {len(adapter.updates)} modules, {same}")


def _merge(arguments: argparse.Namespace) -> None:
    adapter = _read(arguments, arguments.adapter)
    report = merge_adapter(find_model(arguments.model), adapter, arguments.output)
    untied = "; its head is no longer tied to the embedding" if report.untied else ""
    print(
        f"{arguments.output}: {report.num_tensors} tensors, {report.changed} of them changed, "
        f"{report.size / 1e6:.1f} MB{untied}"
    )


def _diff(arguments: argparse.Namespace) -> None:
    print_differences(_read(arguments, arguments.adapter), _read(arguments, arguments.other))


def _read(arguments: argparse.Namespace, adapter: str) -> Adapter:
    """The adapter in that folder, or of that name."""
    if arguments.adapter_path is None and Path(adapter).is_dir():
        return read_adapter(Path(adapter))
    registry = _registry(arguments.adapter_path)
    if arguments.adapter_path is None and adapter not in registry.names():
        raise AdapterError(f"no such folder: {adapter} (a name goes with --adapter_path, its lora_adapter.json)")
    return read_adapter(registry.get(adapter).folder)
