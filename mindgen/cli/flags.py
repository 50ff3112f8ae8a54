"""The flags that commands share, each a key of the YAML file: the model, the engine's limits, the sampling options."""

import argparse
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.adapters.slice_files import find_slices
from mindgen.cli.option_values import is_boolean, is_list, parse_value, read_text_or_file
from mindgen.compat.option_aliases import LENGTH_OPTIONS, sampling_options
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.limits import MEMORY_UTILIZATION, MEMORY_UTILIZATION_ALIAS
from mindgen.errors import ConfigError
from mindgen.kernels.dtypes import DTYPE_CHOICES
from mindgen.loop import roles
from mindgen.loop.model_files import ModelFiles
from mindgen.server.config import ServerConfig
from mindgen.settings import GenerationSettings, RunSettings, Settings, read_generation_file
from mindgen.store.find_model import find_model
from mindgen.system.documented_fields import DocumentedField, documented_fields
from mindgen.system.environment import launched_rank

if TYPE_CHECKING:
    from mindgen.llm import LLM

_FROM_FILES = ("guided_json", "guided_grammar")
_OPTIONS = {f"generation.{name}": option for name, option in sampling_options().items()} | {
    f"engine.{name}": limit for name, limit in documented_fields(EngineConfig).items()
}
_SHORT_NAMES = {"tensor_parallel_size": ["--tp"], "pipeline_parallel_size": ["--pp"], "data_parallel_size": ["--dp"]}
_OPTIONS |= {f"server.{name}": option for name, option in documented_fields(ServerConfig).items()}
_OPTIONS |= {name: DocumentedField(bool, "") for name in ("use_parallel", "auto_trans_ckpt")}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags whose dest is a key of the configuration override it, and have no default of their own."""
    add = parser.add_argument
    add("--config", type=Path, help="YAML configuration, which flags override")
    add("--use_parallel", nargs="?", const="True", metavar="True|False", help="on the devices that a launcher has")
    add("--debug", action="store_true", help="show the traceback of an error")
    add(
        "--model",
        dest="model.path",
        metavar="NAME",
        help="a folder, a .gguf or .pt file, a pulled or a hub's model, or demo",
    )
    add(
        "--load_checkpoint", metavar="DIR", help="the weights, where they are not with the model; or rank_N with each's"
    )
    add("--auto_trans_ckpt", nargs="?", const="True", metavar="True|False", help="shard it for the ranks there are")
    add("--src_strategy_path_or_dir", metavar="PATH", help="how it is sharded: MindSpore's strategy file, or several")
    add("--dtype", dest="model.dtype", choices=DTYPE_CHOICES)
    add(
        "--adapter_path", dest="model.pet_config.adapter_path", metavar="PATH", help="a lora_adapter.json or its folder"
    )
    add("--on_missing_adapter", choices=["error", "base"], help="what an unknown adapter_id gets (default: error)")


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the engine's limits")
    for name, limit in documented_fields(EngineConfig).items():
        if name == MEMORY_UTILIZATION:
            names = group.add_mutually_exclusive_group()
            add_option(names, name, f"engine.{name}", limit)
            alias = DocumentedField(limit.kind, f"another name of --{name}")
            add_option(names, MEMORY_UTILIZATION_ALIAS, f"engine.{name}", alias)
        else:
            add_option(group, name, f"engine.{name}", limit, _SHORT_NAMES.get(name, []))


def add_sampling_arguments(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    group = parser.add_argument_group("sampling, greedy by default; a temperature above 0 or --do_sample samples")
    for name, option in sampling_options().items():
        if name not in without:
            add_option(group, name, f"generation.{name}", option)
    group.add_argument(
        "--evaluation", dest="generation.evaluation", action="store_true", default=None,
        help="let eval_temperature, eval_top_k and eval_top_p replace temperature, top_k and top_p",
    )  # fmt: skip


def overrides(arguments: argparse.Namespace, kind: type[RunSettings] = Settings) -> dict[str, Any]:
    """What the flags that were given say, by the dotted keys of the configuration.

    Args:
        kind: which keys that configuration has.

    Raises:
        UsageError: a flag's value is none that it may have.
    """
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    values = {key: given[key] for key in given if key in kind.model_fields or "." in key}
    for key in _OPTIONS.keys() & values.keys():
        values[key] = _value(key.rpartition(".")[2], _OPTIONS[key], values[key])
    return _unsaid(values) | values


def load_llm(settings: RunSettings) -> "LLM":
    """The model that the settings ask for, with its checkpoint transformed if they say so."""
    from mindgen.llm import LLM  # starts MindSpore, which mistakes in the flags need not wait for

    files, config = model_files(settings)
    return LLM(files.model, files.adapters, settings.model.dtype, config, settings.on_missing_adapter, files.checkpoint)


def model_files(settings: RunSettings) -> tuple[ModelFiles, EngineConfig]:
    """Where the model is, with its checkpoint transformed if the settings say so, and the limits with its slices."""
    files = _model_files(settings)
    return files, replace(settings.engine, adapter_slices=_adapter_slices(settings, files))


def generation_settings(settings: RunSettings) -> GenerationSettings:
    """What the settings say of sampling, and for what they do not say, the model's generation_config.json.

    Raises:
        MindgenError: there is no such model, or its file is damaged.
    """
    return settings.generation.over(read_generation_file(find_model(settings.model.path)))


def check_adapters(settings: RunSettings, adapter_ids: Iterable[str | None]) -> None:
    """What can be said of them before the model is loaded.

    Raises:
        AdapterError: the list cannot be read, or does not have one of them, for which no other may answer.
    """
    wanted = [adapter_id for adapter_id in dict.fromkeys(adapter_ids) if adapter_id is not None]
    if wanted and settings.on_missing_adapter == "error":
        registry = ModelFiles.of(settings.model.path, settings.adapter_paths, None).registry()
        for adapter_id in wanted:
            registry.get(adapter_id)


def serve_if_worker(settings: RunSettings) -> int | None:
    """Where this process works for another one, serves that to its end, and returns the exit code; else None."""
    files, launched = _model_files(settings), launched_rank()
    if launched is not None and launched.rank > 0 and settings.engine.ranks_per_replica > 1:
        _adapter_slices(settings, files)  # rank 0 is not there before these are
    return roles.serve_if_worker(files, settings.engine)


def _model_files(settings: RunSettings) -> ModelFiles:
    return ModelFiles.of(settings.model.path, settings.adapter_paths, _checkpoint(settings))


def _checkpoint(settings: RunSettings) -> str | Path | None:
    if not settings.auto_trans_ckpt:
        return settings.load_checkpoint
    if settings.load_checkpoint is None:
        if settings.engine.tensor_parallel_size == 1:
            raise ConfigError("auto_trans_ckpt: there is no load_checkpoint to transform")
        return None
    from mindgen.cli.auto_transform import transform_for_ranks

    path, strategy = settings.model.path, settings.src_strategy_path_or_dir
    return transform_for_ranks(
        find_model(path),
        Path(settings.load_checkpoint),
        None if strategy is None else Path(strategy),
        settings.engine.tensor_parallel_size,
        settings.engine.pipeline_parallel_size,
    )


def _adapter_slices(settings: RunSettings, files: ModelFiles) -> str | None:
    """Of several ranks: made now with auto_trans_ckpt, else those that lie ready, if any."""
    num_ranks = settings.engine.tensor_parallel_size
    if num_ranks == 1 or settings.engine.adapter_slices is not None:
        return settings.engine.adapter_slices
    if not settings.auto_trans_ckpt:
        found = find_slices(files.registry())
        return None if found is None else str(found)
    from mindgen.cli.auto_transform import slice_for_ranks

    return str(slice_for_ranks(files.folder, files.registry(), num_ranks))


def add_option(group: Any, name: str, dest: str, option: DocumentedField, short_names: Sequence[str] = ()) -> None:
    form: dict[str, Any] = {"metavar": "VALUE"}
    if is_list(option.kind):
        form["nargs"] = "+"
    elif is_boolean(option.kind):
        form |= {"nargs": "?", "const": "True", "metavar": "True|False"}
    description = option.description + (" (JSON or @file)" if name in _FROM_FILES else "")
    group.add_argument(*short_names, f"--{name}", dest=dest, help=description.replace("%", "%%"), **form)


def _value(name: str, option: DocumentedField, typed: str | list[str]) -> Any:
    texts = [typed] if isinstance(typed, str) else typed
    if name in _FROM_FILES:
        texts = [read_text_or_file(f"--{name}", texts[0])]
    return parse_value(f"--{name}", option.kind, texts)


def _unsaid(values: Mapping[str, Any]) -> dict[str, None]:
    """Keys of the file that flags of another name replace: all lengths by one, do_sample by a temperature."""
    lengths = {f"generation.{name}" for name in LENGTH_OPTIONS}
    replaced = lengths if lengths & values.keys() else set()
    if "generation.temperature" in values:
        replaced |= {"generation.do_sample"}
    return dict.fromkeys(replaced)
