"""All that changes a job's results, so that a job that goes on is known to be the same one."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import msgspec

from mindgen.batch.config import BatchConfig, InputColumns
from mindgen.batch.source import Source
from mindgen.errors import BatchError
from mindgen.text.guided import schema_text

# Of the engine's limits, those that results depend on.
_ENGINE = ("tensor_parallel_size", "pipeline_parallel_size", "executor", "device_target", "max_model_len")
_NO_SAMPLING = ("n", "seed", "priority", "processed_logprobs")
_OUTPUTS = ("form", "prefix", "token_ids", "logprobs")


def fingerprint(config: BatchConfig, columns: InputColumns, source: Source, model_digest: str) -> dict[str, Any]:
    """By dotted name, in values of JSON."""
    sampling = {name: value for name, value in asdict(config.sampling).items() if name not in _NO_SAMPLING}
    if sampling["guided_json"] is not None:
        sampling["guided_json"] = schema_text(sampling["guided_json"])
    values = {
        "mindgen": version("mindgen"),
        "input": source.fingerprint(),
        "model": model_digest,
        "model.dtype": config.model.dtype,
        "model.on_missing_adapter": config.model.on_missing_adapter,
        "adapter_id": config.adapter_id,
        "n_samples": config.n_samples,
        "seed": config.seed,
        "part_rows": config.part_rows,
        **_dotted("columns", asdict(columns)),
        **_dotted("prompts", asdict(config.prompts)),
        **_dotted("outputs", {name: getattr(config.outputs, name) for name in _OUTPUTS}),
        **_dotted("sampling", sampling),
        **_dotted("engine", {name: getattr(config.engine, name) for name in _ENGINE}),
    }
    return msgspec.json.decode(msgspec.json.encode(values))


def refuse_changes(folder: object, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises BatchError where the job in the folder was begun with something else, and names that."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        listed = "; ".join(f"{name} was {_shown(before.get(name))}, now {_shown(now.get(name))}" for name in changed)
        raise BatchError(
            f"{folder} holds a job that was begun with something else: {listed}. Name another output, or begin again "
            "with overwrite"
        )


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _dotted(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}
