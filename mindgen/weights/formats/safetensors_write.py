"""Writes tensors as safetensors: by the safetensors package, or one by one where they are too many for memory."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, serialize_file

from mindgen import dtypes
from mindgen.weights.formats.safetensors_map import DTYPE_CODES, MappedTensor


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


def stream_safetensors(
    path: Path,
    kinds: dict[str, tuple[str, tuple[int, ...]]],
    tensors: Iterable[tuple[str, MappedTensor]],
    metadata: dict[str, str],
) -> None:
    """As `write_safetensors`, but takes the memory of one tensor at a time.

    Args:
        kinds: dtype and shape of each tensor.
        tensors: the tensors, in the same order.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, (dtype, shape) in kinds.items():
        begin, end = end, end + math.prod(shape) * np.dtype(dtypes.FILE_STORAGE[dtype]).itemsize
        header[name] = {"dtype": DTYPE_CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for (name, kind), (given, tensor) in zip(kinds.items(), tensors, strict=True):
            assert (name, *kind) == (given, tensor.dtype, tensor.shape), f"{given} comes in the place of {name}"
            file.write(np.ascontiguousarray(tensor.data).data)
