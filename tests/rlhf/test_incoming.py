"""What the pieces of a tensor show is what the whole shows."""

import numpy as np
import pytest

from mindgen.kernels import plugin
from mindgen.rlhf.incoming import IncomingTensor
from mindgen.weights.checksum import Examined, tensor_checksum

SHAPE = (700, 1001)  # more than a block


def sent(bits: np.ndarray, piece_bytes: int) -> IncomingTensor:
    """As it comes."""
    tensor = IncomingTensor("bfloat16", bits.shape, np.zeros(bits.nbytes, np.uint8), plugin.load_kernels())
    data = bits.reshape(-1).view(np.uint8)
    for start in range(0, len(data), piece_bytes):
        tensor.add(data[start : start + piece_bytes])
    assert tensor.received == tensor.num_bytes == bits.nbytes
    return tensor


@pytest.mark.parametrize("piece_bytes", [1 << 30, 1 << 20, 65_538, 4097])
def test_pieces(piece_bytes):
    bits = np.random.default_rng(0).integers(0, 0x7F80, SHAPE, np.uint16)
    tensor = sent(bits, piece_bytes)
    assert np.array_equal(tensor.tensor().data, bits)
    whole = Examined(tensor_checksum("bfloat16", bits), is_finite=True)
    assert tensor.examined() == (whole if piece_bytes % 2 == 0 else None)


@pytest.mark.parametrize("place", [0, 349_999, -1])
def test_one_value_that_is_not_finite(place):
    bits = np.zeros(SHAPE, np.uint16)
    bits.reshape(-1)[place] = 0xFF80
    assert sent(bits, 65_536).examined() == Examined(tensor_checksum("bfloat16", bits), is_finite=False)
