"""What tells models from others: digests of samples of them, quick even where they are large, and of all of them."""

import hashlib
from pathlib import Path

import numpy as np

from mindgen.text.chat_template import template_paths
from mindgen.text.tokenizer_config import tokenizer_paths
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_files import WeightFiles

_TEXTS = ("config.json", "generation_config.json")
_SAMPLE_BYTES = 4096
_DIGEST_LETTERS = 16


def model_digest(folder: Path, weights: WeightFiles) -> str:
    """Of configuration, tokenizer, chat templates, and the tensors."""
    digest = hashlib.sha256()
    for path in _text_paths(folder):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    for rank in range(len(weights.folders)):
        digest.update(f"{rank} {tensors_digest(weights.map(rank))}\n".encode())
    return digest.hexdigest()[:_DIGEST_LETTERS]


def content_digest(folder: Path, weights: WeightFiles) -> str:
    """Of configuration, tokenizer, chat templates, and every byte of the weights."""
    digest = hashlib.sha256()
    for path in [*_text_paths(folder), *weights.files()]:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _text_paths(folder: Path) -> list[Path]:
    texts = [folder / name for name in _TEXTS if (folder / name).is_file()]
    return [*texts, *tokenizer_paths(folder), *template_paths(folder)]


def tensors_digest(tensors: dict[str, MappedTensor]) -> str:
    """Of their names, types, shapes, and of samples of their values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        for values in _samples(tensor):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:_DIGEST_LETTERS]


def _samples(tensor: MappedTensor) -> list[np.ndarray]:
    """The first and the last values."""
    if not tensor.shape or 0 in tensor.shape:
        return [tensor.data]
    row_bytes = tensor.nbytes // tensor.shape[0]
    rows = max(1, min(_SAMPLE_BYTES // row_bytes, tensor.shape[0]))
    ends = tensor.rows(0, rows), tensor.rows(tensor.shape[0] - rows, tensor.shape[0])
    count = _SAMPLE_BYTES // ends[0].data.itemsize
    return [ends[0].data.reshape(-1)[:count], ends[1].data.reshape(-1)[-count:]]
