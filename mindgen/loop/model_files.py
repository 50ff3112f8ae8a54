"""Where a model, its adapters and its checkpoint are, as users say it; and what tells them from others."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from mindgen.adapters.registry import LIST_FILE, AdapterRegistry
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import AdapterError, ConfigError, MindgenError
from mindgen.store import digest, embedded
from mindgen.store.find_model import find_model
from mindgen.store.packaged import PACKAGED
from mindgen.system.checks import shown
from mindgen.weights.architecture import read_model_config
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import WeightFiles, find_weights

DEFAULT_MODEL = "demo"
_ADAPTER_FILES = "adapter_*"
_SAMPLE_BYTES = 4096
_NUM_SAMPLES = 16
_DIGEST_LETTERS = 16


# A lora_adapter.json or its folder, or what it would hold: the folder of each name.
AdapterPaths: TypeAlias = str | Path | Mapping[str, str | Path]


@dataclass(frozen=True, slots=True)
class ModelSetup:
    """The arguments of LLM that are no paths, the same for all replicas."""

    dtype: str
    config: EngineConfig
    on_missing_adapter: str


class ModelFiles(NamedTuple):
    """The arguments of LLM that are paths, or an embedded model's name."""

    model: str
    adapters: str | dict[str, str] | None
    checkpoint: str | None

    @classmethod
    def of(cls, model: str | Path, adapters: AdapterPaths | None, checkpoint: str | Path | None) -> "ModelFiles":
        """Raises ConfigError where one is no path, and AdapterError where a name or a folder cannot be an adapter's."""
        return cls(
            _to_path("model", model, "a folder, a file, or a model's name"),
            _to_adapters(adapters),
            None if checkpoint is None else _to_path("checkpoint", checkpoint, "a folder"),
        )

    @property
    def folder(self) -> Path:
        """Raises ModelError where there is no such model."""
        return find_model(self.model)

    def registry(self) -> AdapterRegistry:
        """The adapters that are listed; those beside the model, or the demo's own, unless others are named."""
        if isinstance(self.adapters, dict):
            return AdapterRegistry({name: adapter_folder(name, path) for name, path in self.adapters.items()})
        if self.adapters is not None:
            return AdapterRegistry.read(Path(self.adapters))
        if self.folder == embedded.demo_folder():
            return AdapterRegistry.read(embedded.adapter_folder())
        if self.model in PACKAGED and (embedded.adapter_folder() / self.model / LIST_FILE).is_file():
            return AdapterRegistry.read(embedded.adapter_folder() / self.model)
        return AdapterRegistry.read(self.folder) if (self.folder / LIST_FILE).is_file() else AdapterRegistry({})

    def weights(self, num_ranks: int) -> WeightFiles:
        return find_weights(self.folder, self.checkpoint, num_ranks)

    def model_config(self) -> ModelConfig:
        return read_model_config(self.folder)

    def model_digest(self, num_ranks: int) -> str:
        """As of store.digest.model_digest: quick, from samples."""
        return digest.model_digest(self.folder, self.weights(num_ranks))

    def content_digest(self, num_ranks: int) -> str:
        """As of store.digest.content_digest: of every byte."""
        return digest.content_digest(self.folder, self.weights(num_ranks))


def adapter_folder(adapter_id: str, folder: str | Path) -> Path:
    """The folder that a program names for an adapter.

    Raises:
        AdapterError: the name is no text, or there is no such folder.
    """
    if not isinstance(adapter_id, str):
        raise AdapterError(f"an adapter's name must be a text, not {shown(adapter_id)}")
    path = Path(_to_path(f"adapter {adapter_id}: its folder", folder, "a path", AdapterError))
    if not path.is_dir():
        raise AdapterError(f"adapter {adapter_id}: no such folder: {path}")
    return path


def _to_adapters(adapters: Any) -> str | dict[str, str] | None:
    if adapters is None:
        return None
    if isinstance(adapters, Mapping):
        return {name: str(adapter_folder(name, folder)) for name, folder in adapters.items()}
    return _to_path("adapters", adapters, f'a {LIST_FILE} or its folder, or a dict like {{"A1": "path/of/its/folder"}}')


def _to_path(what: str, value: Any, expected: str, error: type[MindgenError] = ConfigError) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise error(f"{what} must be {expected}, not {shown(value)}")
    return path


def adapter_digests(registry: AdapterRegistry) -> dict[str, str]:
    """By name, of the adapters' configurations and samples of their files; quick, for there may be thousands."""
    return {version.adapter_id: _files_digest(version.folder) for version in registry.versions()}


def _files_digest(folder: Path) -> str:
    hashed = hashlib.sha256()
    for file in sorted(folder.glob(_ADAPTER_FILES)):
        size = file.stat().st_size
        hashed.update(json.dumps([file.name, size]).encode())
        step = max(_SAMPLE_BYTES, (size - _SAMPLE_BYTES) // (_NUM_SAMPLES - 1))
        with file.open("rb") as opened:
            for place in range(0, size, step):
                hashed.update(os.pread(opened.fileno(), _SAMPLE_BYTES, place))
    return hashed.hexdigest()[:_DIGEST_LETTERS]
