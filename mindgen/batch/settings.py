"""The settings of a batch job, as people write them: a YAML file, words like key=value, flags."""

import math
import os.path
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mindgen.batch.config import BatchConfig, InputColumns, ModelChoice, OutputOptions, PromptOptions
from mindgen.batch.job_keys import JobKeys
from mindgen.batch.verl_form import translate_verl_keys
from mindgen.compat.hydra_overrides import parse_override
from mindgen.compat.predict_yaml import is_predict_yaml, translate_predict_yaml
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.limits import MEMORY_UTILIZATION_ALIAS
from mindgen.errors import ConfigError, RequestError, UsageError
from mindgen.loop.model_files import AdapterPaths, ModelFiles
from mindgen.sampling_params import SamplingParams
from mindgen.settings import RunSettings, read_settings, setting_keys
from mindgen.system.environment import launched_rank
from mindgen.system.yaml_file import read_yaml_file

_DEFAULT_NEW_TOKENS = 64
_MAPPINGS = ("adapters", "prompts.template_variables", "generation.logit_bias", "generation.guided_json")
_NONE_IS_NO_COLUMN = ("columns.adapter_id", "columns.sampling", "columns.seed")
_ALIAS = f"engine.{MEMORY_UTILIZATION_ALIAS}"
_VERL_SECTIONS = ("data", "rollout", "actor_rollout_ref")
_LENGTHS = "counts the prompt too, and each row has its own: use generation."
# Sampling options of a single request, and what a job has in their place.
NOT_OF_A_JOB = {
    "max_length": f"{_LENGTHS}max_tokens",
    "seq_length": f"{_LENGTHS}max_tokens",
    "min_length": f"{_LENGTHS}min_tokens",
    "n": "is n_samples of a job",
    "num_return_sequences": "is n_samples of a job",
    "seed": "is seed of a job",
    "logprobs": "is outputs.logprobs of a job",
    "prompt_logprobs": "has no column in a job's output",
    "deadline_seconds": "has no place in a job: its answers would depend on how fast it runs",
    "processed_logprobs": "has no column in a job's output",
}


class BatchSettings(RunSettings):
    """A whole configuration: that of a run, and the fields of BatchConfig.

    Attributes:
        adapters: as LLM takes them; in place of model.pet_config.adapter_path.
    """

    input: str | list[str] | None = None
    output: str | None = None
    adapters: str | dict[str, str] | None = None
    adapter_id: str | None = None
    columns: InputColumns = InputColumns()
    prompts: PromptOptions = PromptOptions()
    outputs: OutputOptions = OutputOptions()
    n_samples: int = 1
    seed: int = 0
    batch_size: int | None = None
    part_rows: int = 1000
    fail_fast: bool = False
    retry_failed: bool = False
    runner: Literal["local", "ray"] = "local"

    @property
    def adapter_paths(self) -> AdapterPaths | None:
        return super().adapter_paths if self.adapters is None else self.adapters

    def job(self, files: ModelFiles, engine: EngineConfig) -> BatchConfig:
        """
        Args:
            files: where the model is.
            engine: the limits for this process.

        Raises:
            UsageError: there is no input, or no output; or a value is out of its range.
        """
        if not self.input:
            raise UsageError("no input: give data.path=FILE, or --input FILE, with a row for each prompt")
        if not self.output:
            raise UsageError("no output: give data.output_path=FILE, or --output FILE")
        inputs = [self.input] if isinstance(self.input, str) else self.input
        paths = [os.path.expanduser(each) for each in inputs]
        return BatchConfig(
            input=paths[0] if len(paths) == 1 else paths,
            output=os.path.expanduser(self.output),
            model=ModelChoice(
                path=files.model,
                adapters=files.adapters,
                dtype=self.model.dtype,
                checkpoint=files.checkpoint,
                on_missing_adapter=self.on_missing_adapter,
            ),
            sampling=self._sampling(),
            engine=engine,
            **{name: getattr(self, name) for name in _COPIED},
        )

    def _sampling(self) -> SamplingParams:
        given = self.generation.model_dump(exclude_none=True)
        for name, why in NOT_OF_A_JOB.items():
            if name in given:
                raise ConfigError(f"generation.{name} {why}")
        try:
            return self.generation.sampling_params(_DEFAULT_NEW_TOKENS)
        except RequestError as error:  # of the settings, not of a row
            raise ConfigError(str(error)) from error


_COPIED = [
    field.name for field in fields(BatchConfig) if field.name not in ("input", "output", "model", "sampling", "engine")
]


class BatchRequest(NamedTuple):
    """What was asked for, and what people should know of it, a line each."""

    settings: BatchSettings
    notes: list[str]


def read_batch_settings(path: Path | None, words: Sequence[str], flags: Mapping[str, Any]) -> BatchRequest:
    """
    Args:
        path: a YAML file in our own sections, veRL's or MindFormers'; the words go before it, and the flags before
            both.
        words: like key=value, as Hydra has them.
        flags: by our own dotted keys; None takes back what the others say.

    Raises:
        UsageError: a word cannot be read.
        ConfigError: a key is unknown, or a value none that it may have.
    """
    keys = JobKeys(setting_keys(BatchSettings), _MAPPINGS)
    if path is not None:
        raw = read_yaml_file(path)
        try:
            keys.read(raw if any(name in raw for name in _VERL_SECTIONS) or not is_predict_yaml(raw)
                      else translate_predict_yaml(path, raw))  # fmt: skip
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    for word in words:
        keys.apply(parse_override(word))
    values, notes = translate_verl_keys(keys.said)
    values |= flags
    values = {name: value for name, value in values.items() if value is not None or name in _NONE_IS_NO_COLUMN}
    _distribute(values)
    _rename(values)
    return BatchRequest(read_settings(BatchSettings, {}, values), notes)


def _distribute(values: dict[str, Any]) -> None:
    """As many replicas as the devices hold; several machines without a common address are Ray's."""
    nnodes, per_node, replicas = (values.pop(f"devices.{name}", None) for name in ("nnodes", "per_node", "replicas"))
    ranks = [values.get(f"engine.{name}_parallel_size", 1) for name in ("tensor", "pipeline")]
    are_counts = all(isinstance(each, int) and each > 0 for each in ranks)  # else the schema refuses them
    if (nnodes, per_node, replicas) != (None, None, None) and are_counts:
        least = math.prod([*ranks, replicas or 1])
        nnodes = nnodes or 1
        devices = nnodes * (per_node or -(-least // nnodes))
        if devices % least:
            raise ConfigError(
                f"trainer.nnodes x trainer.n_gpus_per_node is {devices} device(s), which is no multiple of {least}, of "
                "rollout.tensor_model_parallel_size (times pipeline_model_parallel_size and data_parallel_size)"
            )
        if per_node is not None or replicas is not None or nnodes > 1:
            values.setdefault("engine.data_parallel_size", devices // math.prod(ranks))
        values.setdefault("engine.nnodes", nnodes)
    if values.get("engine.nnodes", 1) != 1 and "engine.master_addr" not in values:
        del values["engine.nnodes"]
        if launched_rank() is None:
            values.setdefault("runner", "ray")


def _rename(values: dict[str, Any]) -> None:
    """One name where there are two, and folders below the user's own with their whole names."""
    if _ALIAS in values:
        value = values.pop(_ALIAS)
        if values.setdefault("engine.memory_utilization", value) != value:
            raise ConfigError("engine.gpu_memory_utilization is another name of engine.memory_utilization: give one")
    if "adapters" in values and "model.pet_config.adapter_path" in values:
        raise ConfigError("adapters and model.pet_config.adapter_path are the same: keep one of them")
    for name in ("model.path", "adapters", "model.pet_config.adapter_path"):
        if isinstance(values.get(name), str):
            values[name] = os.path.expanduser(values[name])
