"""The cosines and sines of rotary position embedding (arXiv:2104.09864), with Llama 3's frequency scaling, and what
brings together that which is rotated together."""

import math

import numpy as np
from mindspore import Tensor, nn, ops

from mindgen.weights.model_config import RopeConfig


class HalvesOfPairs(nn.Cell):
    """Of each head first the first ones of all pairs that lie side by side, then the second ones, for rotate-half.

    Queries and keys so reordered have the products that they had before.

    Args:
        cuts: into how many slices the heads are cut.
    """

    def __init__(self, head_size: int, cuts: int) -> None:
        super().__init__()
        self.head_size = head_size
        self.order = Tensor(np.arange(head_size, dtype=np.int32).reshape(-1, 2).T.reshape(-1))  # (D,)
        self.gather = ops.Gather().shard(((1, cuts, 1), (1,)))
        self.reshape = ops.Reshape()

    def construct(self, x: Tensor, num_heads: int) -> Tensor:
        """x (T, heads*D) to the same."""
        heads = self.reshape(x, (-1, num_heads, self.head_size))  # (T, heads, D)
        return self.reshape(self.gather(heads, self.order, 2), (-1, num_heads * self.head_size))  # (T, heads*D)


def rotary_tables(rope: RopeConfig, head_size: int, num_positions: int) -> tuple[np.ndarray, np.ndarray]:
    """The float32 tables cos, sin (num_positions, D); both halves of a row are the same, as rotate-half wants."""
    frequencies = _frequencies(rope, rope.rotated_size(head_size))
    frequencies = np.pad(frequencies, (0, head_size // 2 - len(frequencies)))  # what is not rotated stands still
    angles = np.outer(np.arange(num_positions, dtype=np.float32), frequencies)  # (num_positions, D/2)
    angles = np.concatenate([angles, angles], axis=1)  # (num_positions, D)
    return np.cos(angles), np.sin(angles)


def _frequencies(rope: RopeConfig, head_size: int) -> np.ndarray:
    frequencies = (1.0 / rope.theta ** (np.arange(0, head_size, 2, dtype=np.float32) / head_size)).astype(np.float32)
    if rope.kind == "linear":
        return frequencies / np.float32(rope.factor)
    if rope.kind == "factors":
        return frequencies / np.array(rope.factors, np.float32)
    if rope.kind == "llama3":
        return _stretch_low_frequencies(rope, frequencies)
    return frequencies


def _stretch_low_frequencies(rope: RopeConfig, frequencies: np.ndarray) -> np.ndarray:
    """Llama 3.1's rule: long waves are stretched by factor, short ones kept, those between interpolated."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position / wavelengths
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = np.clip(keep, 0.0, 1.0)
    return ((1 - keep) * frequencies / rope.factor + keep * frequencies).astype(np.float32)
