"""Writes tensors as safetensors, by the safetensors package."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, serialize_file

from mindgen.checkpoint.safetensors_map import MappedTensor


def write_safetensors(path: Path, tensors: dict[str, MappedTensor], metadata: dict[str, str]) -> None:
    """Writes the file; takes the memory of all its tensors.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    contents = {
        name: {"dtype": tensor.dtype, "shape": tensor.shape, "data": np.ascontiguousarray(tensor.data).tobytes()}
        for name, tensor in tensors.items()
    }
    try:
        serialize_file(contents, str(path), metadata)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
