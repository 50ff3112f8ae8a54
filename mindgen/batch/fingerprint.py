"""All that changes a job's results, so that a job that goes on is known to be the same one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import msgspec
from blake3 import blake3

from mindgen.batch.config import BatchConfig, InputColumns
from mindgen.batch.formats.open_file import kind_of
from mindgen.batch.job_folder import InputFile, Manifest
from mindgen.batch.source import Source
from mindgen.errors import BatchError
from mindgen.text.guided import schema_text

# Of the engine's limits, those that results depend on.
_ENGINE = ("tensor_parallel_size", "pipeline_parallel_size", "executor", "device_target", "max_model_len")
_NO_SAMPLING = ("n", "seed", "priority", "processed_logprobs")
_INPUT = "input"  # its files' content and order
_MOST_FILES = 3  # that are named
_OUTPUTS = ("token_ids", "logprobs")
_COLUMNS = ("form", "prefix")  # of outputs; parts have the same answers for all of them


def manifest_of(config: BatchConfig, columns: InputColumns, source: Source, model_digest: str) -> Manifest:
    """Of the job where it begins.

    Raises:
        DataError: a file of the input cannot be read any more.
    """
    digests = source.digests()
    kinds = [kind_of(file.path) for file in source.files]
    content = blake3(msgspec.json.encode([*zip(kinds, digests, strict=True)])).hexdigest()
    return Manifest(
        fingerprint=_fingerprint(config, columns, content, model_digest),
        files=[InputFile(str(file.path), digest) for file, digest in zip(source.files, digests, strict=True)],
        num_rows=source.num_rows,
        part_rows=config.part_rows,
        columns=_dotted("outputs", {name: getattr(config.outputs, name) for name in _COLUMNS}),
        overwrite=config.outputs.overwrite,
    )


def refuse_changes(folder: object, before: Manifest, now: Manifest) -> None:
    """Raises BatchError where the job in the folder was begun with something else, and names that; where it is
    finished, its output must be written in the same way too."""
    then, own = before.fingerprint, now.fingerprint
    if before.is_finished:
        then, own = then | before.columns, own | now.columns
    changed = [name for name in {**then, **own} if then.get(name) != own.get(name)]
    if changed:
        listed = "; ".join(
            _changed_files(before.files, now.files)
            if name == _INPUT
            else f"{name} was {_shown(then.get(name))}, now {_shown(own.get(name))}"
            for name in changed
        )
        raise BatchError(
            f"{folder} holds a job that was begun with something else: {listed}. Name another output, or begin again "
            "with overwrite"
        )


def _fingerprint(config: BatchConfig, columns: InputColumns, content: str, model_digest: str) -> dict[str, Any]:
    """By dotted name, in values of JSON."""
    sampling = {name: value for name, value in asdict(config.sampling).items() if name not in _NO_SAMPLING}
    if sampling["guided_json"] is not None:
        sampling["guided_json"] = schema_text(sampling["guided_json"])
    values = {
        "mindgen": version("mindgen"),
        _INPUT: content,
        "model": model_digest,
        "model.dtype": config.model.dtype,
        "model.on_missing_adapter": config.model.on_missing_adapter,
        "adapter_id": config.adapter_id,
        "n_samples": config.n_samples,
        "seed": config.seed,
        **_dotted("columns", asdict(columns)),
        **_dotted("prompts", asdict(config.prompts)),
        **_dotted("outputs", {name: getattr(config.outputs, name) for name in _OUTPUTS}),
        **_dotted("sampling", sampling),
        **_dotted("engine", {name: getattr(config.engine, name) for name in _ENGINE}),
    }
    return msgspec.json.decode(msgspec.json.encode(values))


def _changed_files(before: Sequence[InputFile], now: Sequence[InputFile]) -> str:
    then, own = ({file.path: file.digest for file in files} for files in (before, now))
    changes = [
        f"{path} {'is not of it any more' if path not in own else 'is new' if path not in then else 'has changed'}"
        for path in {**then, **own}
        if then.get(path) != own.get(path)
    ]
    rest = len(changes) - _MOST_FILES
    return f"the input: {', '.join(changes[:_MOST_FILES]) or 'its files are in another order'}" + (
        f" and {rest} more" if rest > 0 else ""
    )


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _dotted(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}
