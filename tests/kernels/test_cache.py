import numpy as np
import pytest

from mindgen.errors import KernelError


def write(kernels, slots, num_slots=64, width=24, num_tokens=None):
    """Returns keys, values and the caches, which were full of 255."""
    slots = np.array(slots, np.int32)
    key, value = np.random.default_rng(0).integers(0, 255, (2, len(slots), width), np.uint8)
    caches = np.full((2, num_slots, width), 255, np.uint8)
    num_tokens = len(slots) if num_tokens is None else num_tokens
    try:
        kernels.call("reshape_and_cache", key, value, caches[0], caches[1], slots, num_tokens, num_slots, width)
    except KernelError:
        assert (caches == 255).all()
        raise
    return key, value, caches


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("tokens, num_slots, width", [(1, 1, 1), (7, 64, 24), (300, 400, 2048)])
def test_rows_go_to_their_slots(kernels, tokens, num_slots, width, num_threads):
    kernels.num_threads = num_threads
    slots = np.random.default_rng(1).permutation(num_slots)[:tokens]
    key, value, caches = write(kernels, slots, num_slots, width)
    np.testing.assert_array_equal(caches[0, slots], key)
    np.testing.assert_array_equal(caches[1, slots], value)
    assert (np.delete(caches, slots, axis=1) == 255).all()


def test_slot_minus_one_is_skipped(library):
    key, value, caches = write(library, [-1, 3, -1, 0])
    np.testing.assert_array_equal(caches[:, 3], [key[1], value[1]])
    np.testing.assert_array_equal(caches[:, 0], [key[3], value[3]])
    assert (np.delete(caches, [0, 3], axis=1) == 255).all()


def test_no_tokens(library):
    write(library, [])


@pytest.mark.parametrize("slot", [64, -2, 2**31 - 1])
def test_slots_outside_the_cache(library, slot):
    with pytest.raises(KernelError, match=f"slot {slot} of token 1 is outside the cache of 64"):
        write(library, [5, slot])


def test_bad_arguments(library):
    with pytest.raises(KernelError, match="T -1"):
        write(library, [5], num_tokens=-1)
    with pytest.raises(KernelError, match="NULL"):
        library.call("reshape_and_cache", None, None, None, None, None, 1, 4, 8)
