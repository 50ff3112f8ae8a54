"""A file of tensors, written in the memory of a few rows, gone on with, and read back."""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.kernels import plugin
from mindgen.kernels.library import DType
from mindgen.system.resumable import Journal
from mindgen.weights.formats.gguf_layout import Q8_0, pack_q8_0
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import FileLayout, Place

Content: TypeAlias = dict[str, tuple[MappedTensor, str]]  # each tensor, and the dtype (or q8_0) that it is to have
_BLOCK_ELEMENTS = 1 << 18
_CHUNK_BYTES = 1 << 20


def num_kept(file: Path, layout: FileLayout, entries: Sequence[tuple[str, str]]) -> int:
    """How many tensors are in the file already, whole, and with the digests that were noted."""
    if not file.is_file():
        return 0
    kept = 0
    with file.open("rb") as opened:
        if opened.read(len(layout.header)) != layout.header:
            return 0
        for place, (name, digest) in zip(layout.places, entries, strict=False):
            if name != place.name or _read_digest(opened, place) != digest:
                break
            kept += 1
    return kept


def write_tensors(file: Path, layout: FileLayout, content: Content, journal: Journal) -> None:
    """Writes all that are not in the journal, in the order of the layout, and notes each there.

    Raises:
        CheckpointError: a tensor has values for which its new dtype has no place.
        OSError: the disk is full.
    """
    kept = len(journal.entries)
    start = len(layout.header) + sum(place.total_bytes for place in layout.places[:kept])
    with file.open("r+b" if kept else "wb") as opened:
        opened.truncate(start if kept else 0)
        opened.seek(start if kept else 0)
        if not kept:
            opened.write(layout.header)
        for place in layout.places[kept:]:
            tensor, dtype = content[place.name]
            digest = hashlib.sha256()
            opened.write(place.before)
            for block in _blocks(place.name, tensor, dtype):
                digest.update(block.data)
                opened.write(block.data)
            opened.write(place.behind)
            opened.flush()
            tensor.release()
            journal.note(place.name, digest.hexdigest())
        os.fsync(opened.fileno())


def verify_tensors(file: Path, layout: FileLayout, digests: Mapping[str, str]) -> None:
    """Raises CheckpointError where the file holds something else than was written."""
    with file.open("rb") as opened:
        opened.seek(len(layout.header))
        for place in layout.places:
            if _read_digest(opened, place) != digests[place.name]:
                raise CheckpointError(
                    f"{file}: {place.name} reads back as something else than was written: the disk is faulty"
                )


def _read_digest(file: BinaryIO, place: Place) -> str:
    """Of a tensor's data, as it lies in the file; none where what is around it is not as it should be."""
    digest = hashlib.sha256()
    is_whole = file.read(len(place.before)) == place.before
    remaining = place.num_bytes
    while remaining:
        chunk = file.read(min(remaining, _CHUNK_BYTES))
        if not chunk:
            return ""
        digest.update(chunk)
        remaining -= len(chunk)
    is_whole = is_whole and file.read(len(place.behind)) == place.behind
    return digest.hexdigest() if is_whole else ""


def _blocks(name: str, tensor: MappedTensor, dtype: str) -> Iterator[np.ndarray]:
    """The tensor's rows in that dtype, a few at a time, as they are written."""
    if not tensor.shape:
        yield np.ascontiguousarray(tensor.as_dtype(dtype))
        return
    step = max(1, _BLOCK_ELEMENTS // max(1, math.prod(tensor.shape[1:])))
    for first in range(0, tensor.shape[0], step):
        last = min(first + step, tensor.shape[0])
        try:
            yield _encoded(tensor, first, last, dtype)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error


def _encoded(tensor: MappedTensor, first: int, last: int, dtype: str) -> np.ndarray:
    if dtype == Q8_0:
        return pack_q8_0(np.ascontiguousarray(tensor.rows_as(first, last, "float32")))
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(tensor.rows_as(first, last, dtype))
    kernels = plugin.load_kernels()
    if dtype == "float16" and tensor.dtype != dtype and not kernels.are_finite(rows, DType.FLOAT16):
        raise CheckpointError("there are values that float16 cannot hold, not finite or above 65504: take bfloat16")
    return rows
