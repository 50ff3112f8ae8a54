"""Checksums of tensors, and of all of a network's: the same for the same content, however it came."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xxhash


@dataclass(frozen=True, slots=True)
class Examined:
    """What has been found of a tensor: its checksum, and whether no value is infinite or NaN."""

    checksum: str
    is_finite: bool


def begin_checksum(dtype: str, shape: tuple[int, ...]) -> xxhash.xxh3_128:
    """That of a tensor, before its bytes in the storage of dtype."""
    return xxhash.xxh3_128(f"{dtype} {shape}\n".encode())


def tensor_checksum(dtype: str, data: np.ndarray) -> str:
    """XXH3 (128 bits) of an array in the storage of dtype: as fast as memory, and no protection against forgery."""
    checksum = begin_checksum(dtype, data.shape)
    checksum.update(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
    return checksum.hexdigest()


def network_checksum(shape: str, checksums: Mapping[str, str]) -> str:
    """Of a network of that shape, of whose tensors these are the checksums by name."""
    checksum = xxhash.xxh3_128(f"{shape}\n".encode())
    for name, each in sorted(checksums.items()):
        checksum.update(f"{name} {each}\n".encode())
    return checksum.hexdigest()


def joined_checksum(parts: list[str]) -> str:
    """Of what several ranks have under one name: that of the whole where they have it alike."""
    return parts[0] if len(set(parts)) == 1 else xxhash.xxh3_128("\n".join(parts).encode()).hexdigest()
