"""The YAML configuration of a run, validated: what is not in the schema is an error that names the nearest key."""

import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mindgen.compat.option_aliases import LENGTH_OPTIONS, sampling_options, translate_options
from mindgen.compat.predict_yaml import check_checkpoint, is_predict_yaml, translate_predict_yaml
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.limits import MEMORY_UTILIZATION_ALIAS, unalias_limits
from mindgen.errors import ConfigError, ModelError, RequestError, warn
from mindgen.kernels.dtypes import DtypeChoice
from mindgen.loop.model_files import DEFAULT_MODEL, AdapterPaths
from mindgen.sampling_params import SamplingParams
from mindgen.system.json_file import read_json_object
from mindgen.system.suggestion import closest
from mindgen.system.yaml_file import read_yaml_file

# Options of transformers that change which tokens come.
_NOT_SERVED = (
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "num_beam_groups",
    "diversity_penalty", "penalty_alpha", "dola_layers", "constraints", "force_words_ids", "suppress_tokens",
    "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "sequence_bias",
    "epsilon_cutoff", "eta_cutoff", "top_h", "exponential_decay_length_penalty", "guidance_scale",
    "watermarking_config",
)  # fmt: skip

SettingsKind = typing.TypeVar("SettingsKind", bound="RunSettings")


class Section(BaseModel):
    """A part of a configuration file; what is not among its keys is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class PetConfig(Section):
    """Adapters, as MindFormers names them; adapter_path is a lora_adapter.json or the folder that holds it."""

    pet_type: Literal["slora", "lora"] = "slora"
    adapter_path: str | None = None


class ModelSettings(Section):
    """The model, by any name that LLM takes."""

    path: str = DEFAULT_MODEL
    dtype: DtypeChoice = "auto"
    pet_config: PetConfig = PetConfig()


_SamplingOptions: Any = create_model(
    "_SamplingOptions",
    __base__=Section,
    **{name: (typing.Optional[option.kind], None) for name, option in sampling_options().items()},  # noqa: UP045
)  # type: ignore[call-overload]


class GenerationSettings(_SamplingOptions):
    """Sampling, with the names of SamplingParams, MindFormers and ChatLearn; None is not given.

    Attributes:
        evaluation: let eval_temperature, eval_top_k and eval_top_p replace temperature, top_k and top_p.
    """

    evaluation: bool = False

    def sampling_params(self, default_max_tokens: int, prompt_len: int = 0) -> SamplingParams:
        """Greedy unless do_sample, or a temperature without it, says otherwise.

        Args:
            default_max_tokens: where nothing says how much to generate.

        Raises:
            RequestError: an option has a value out of its range, or does not go with another.
        """
        options = self.model_dump(exclude={"evaluation"}, exclude_none=True)
        if "do_sample" not in options:
            names = ("eval_temperature", "temperature") if self.evaluation else ("temperature",)
            options["do_sample"] = next((options[name] for name in names if name in options), 0.0) != 0
        if not set(LENGTH_OPTIONS) & options.keys():
            options["max_tokens"] = default_max_tokens
        return translate_options(options, prompt_len, evaluation=self.evaluation)

    def over(self, defaults: "GenerationSettings") -> "GenerationSettings":
        """These, and of those what these do not say: one length replaces all, a temperature do_sample as well."""
        given = self.model_dump(exclude_none=True)
        replaced = set(LENGTH_OPTIONS) if set(LENGTH_OPTIONS) & given.keys() else set()
        replaced |= {"do_sample"} if {"temperature", "eval_temperature"} & given.keys() else set()
        return GenerationSettings(**{**defaults.model_dump(exclude_none=True, exclude=replaced), **given})


class RunSettings(Section):
    """What all commands have that run a model.

    Attributes:
        load_checkpoint: the folder of the weights, or of a rank_N for each rank, where the model's folder has only the
            rest.
        auto_trans_ckpt: shard it for the ranks that there are, into output/transform_ckpt.
        src_strategy_path_or_dir: how it is sharded; None takes the strategy.ckpt in it, or it is whole.
    """

    use_parallel: bool = False
    on_missing_adapter: Literal["error", "base"] = "error"
    load_checkpoint: str | None = None
    auto_trans_ckpt: bool = False
    src_strategy_path_or_dir: str | None = None
    model: ModelSettings = ModelSettings()
    engine: EngineConfig = EngineConfig()
    generation: GenerationSettings = GenerationSettings()

    @property
    def adapter_paths(self) -> AdapterPaths | None:
        """As LLM takes them."""
        return self.model.pet_config.adapter_path


class Settings(RunSettings):
    """A whole configuration file of `mindgen generate`."""

    run_mode: Literal["predict"] = "predict"
    adapter_id: str | list[str] | None = None
    predict_data: str | list[str] | None = None


def read_generation_file(folder: Path) -> GenerationSettings:
    """What the generation_config.json of a model's folder says of sampling, by the same schema; all None without it.

    Raises:
        ModelError: it is no JSON, or an option has a value that it cannot have.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return GenerationSettings()
    raw = {name: value for name, value in read_json_object(path, ModelError).items() if value is not None}
    if "stop_strings" in raw:
        raw["stop"] = raw.pop("stop_strings")
    ignored = [name for name in _NOT_SERVED if raw.get(name) not in (None, False, 0, 1, [], {})]
    if ignored:
        warn(f"{path}: {', '.join(ignored)} of it is not served, and is ignored: outputs may differ from transformers'")
    options = {name: value for name, value in raw.items() if name in GenerationSettings.model_fields}
    if {"temperature", "top_k", "top_p"} & options.keys():
        options.setdefault("do_sample", False)  # which transformers takes where the file does not say
    try:
        defaults = GenerationSettings.model_validate(options)
        defaults.sampling_params(default_max_tokens=1)
    except ValidationError as error:
        details = error.errors()[0]
        expected = details["msg"].removeprefix("Input should be ")
        raise ModelError(f"{path}: {details['loc'][0]} must be {expected}, not {details['input']!r}") from error
    except RequestError as error:
        raise ModelError(f"{path}: {error}") from error
    return defaults


def load_settings(path: Path | None, overrides: dict[str, Any]) -> Settings:
    """The settings of a YAML file, with values from the command line on top.

    Args:
        path: None is an empty file.
        overrides: by dotted key, e.g. {"generation.top_k": 5}.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not follow the schema.
    """
    name = "command line" if path is None else str(path)
    raw = {} if path is None else read_yaml_file(path)
    try:
        if path is None or not is_predict_yaml(raw):
            return read_settings(Settings, raw, overrides)
        settings = read_settings(Settings, translate_predict_yaml(path, raw), overrides)
        if "model.path" not in overrides:
            check_checkpoint(raw, settings.load_checkpoint)
        return settings
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def read_settings(kind: type[SettingsKind], raw: dict[str, Any], overrides: Mapping[str, Any]) -> SettingsKind:
    """The settings that the sections hold, with others on top.

    Args:
        raw: what a configuration file holds; changed.
        overrides: by dotted key.

    Raises:
        ConfigError: they do not follow the schema.
    """
    try:
        if isinstance(raw.get("engine"), dict):
            raw["engine"] = unalias_limits(raw["engine"])
        for key, value in overrides.items():
            _override(raw, key.split("."), value)
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(kind, details) for details in error.errors())) from error


def _override(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    section = raw
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{key} must hold keys and values, not {section!r}")
    section[keys[-1]] = value


def _describe(kind: type[Section], details: Any) -> str:
    # pydantic adds the tried alternative of a union to the location; only what names keys is kept.
    valid_keys = setting_keys(kind)
    location = [str(part) for part in details["loc"]]
    if details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        key = ".".join(location)
        nearest = closest(key, valid_keys, 0)
        return f"unknown key {key!r}; did you mean {nearest!r}?"
    while len(location) > 1 and ".".join(location) not in valid_keys:
        location.pop()
    message = details["msg"].removeprefix("Input should be ")
    return f"{'.'.join(location)} must be {message}, not {details['input']!r}"


def setting_keys(kind: type[Section]) -> list[str]:
    """The dotted names of all keys that such a file may have, those of sections included."""
    return [*_valid_keys(kind), f"engine.{MEMORY_UTILIZATION_ALIAS}"]


def _valid_keys(section: Any, prefix: str = "") -> list[str]:
    """The dotted names of all keys of a section, sections within it included."""
    keys = []
    for name, annotation in typing.get_type_hints(section).items():
        if typing.get_origin(annotation) is typing.ClassVar or name == "model_config":
            continue
        keys.append(prefix + name)
        if is_dataclass(annotation) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            keys += _valid_keys(annotation, f"{prefix}{name}.")
    return keys
