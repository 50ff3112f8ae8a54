"""Where a model, its adapters and its checkpoint are, as users say it; and what tells them from others."""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from mindgen import demo
from mindgen.adapters.registry import LIST_FILE, AdapterRegistry
from mindgen.checkpoint.hf import model_folder
from mindgen.checkpoint.weight_files import WeightFiles, find_weights

_TEXTS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
_ADAPTER_FILES = "adapter_*"
_SAMPLE_BYTES = 4096
_NUM_SAMPLES = 16
_DIGEST_LETTERS = 16


class ModelFiles(NamedTuple):
    """The arguments of LLM that are paths, or an embedded model's name."""

    model: str
    adapters: str | None
    checkpoint: str | None

    @classmethod
    def of(cls, model: str | Path, adapters: str | Path | None, checkpoint: str | Path | None) -> "ModelFiles":
        return cls(
            str(model), None if adapters is None else str(adapters), None if checkpoint is None else str(checkpoint)
        )

    @property
    def folder(self) -> Path:
        """Raises ModelError where there is no such model."""
        return demo.find_model(self.model) or model_folder(Path(self.model))

    def registry(self) -> AdapterRegistry:
        """The adapters that are listed; those beside the model, or the demo's own, unless others are named."""
        if self.adapters is not None:
            return AdapterRegistry.read(Path(self.adapters))
        if self.folder == demo.model_folder():
            return AdapterRegistry.read(demo.adapter_folder())
        return AdapterRegistry.read(self.folder) if (self.folder / LIST_FILE).is_file() else AdapterRegistry({})

    def weights(self, num_ranks: int) -> WeightFiles:
        return find_weights(self.folder, self.checkpoint, num_ranks)


def model_digest(folder: Path, weights: WeightFiles) -> str:
    """Of configuration, tokenizer, and the tensors: their names, types, shapes, and samples of their values."""
    digest = hashlib.sha256()
    for name in _TEXTS:
        if (folder / name).is_file():
            digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    for rank in range(len(weights.folders)):
        for name, tensor in sorted(weights.map(rank).items()):
            digest.update(f"{rank} {name} {tensor.dtype} {tensor.shape}\n".encode())
            values = tensor.data.reshape(-1)
            count = _SAMPLE_BYTES // values.itemsize
            digest.update(values[:count].tobytes() + values[-count:].tobytes())
    return digest.hexdigest()[:_DIGEST_LETTERS]


def adapter_digests(registry: AdapterRegistry) -> dict[str, str]:
    """By name, of the adapters' configurations and samples of their files; quick, for there may be thousands."""
    return {version.adapter_id: _files_digest(version.folder) for version in registry.versions()}


def _files_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob(_ADAPTER_FILES)):
        size = file.stat().st_size
        digest.update(json.dumps([file.name, size]).encode())
        step = max(_SAMPLE_BYTES, (size - _SAMPLE_BYTES) // (_NUM_SAMPLES - 1))
        with file.open("rb") as opened:
            for place in range(0, size, step):
                digest.update(os.pread(opened.fileno(), _SAMPLE_BYTES, place))
    return digest.hexdigest()[:_DIGEST_LETTERS]
