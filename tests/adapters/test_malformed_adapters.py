"""500 malformed adapters: each is refused in one line, in bounded memory, and nothing in them is executed."""

import random
import tracemalloc

import pytest
from good_adapter import MODULES, write_good
from malformed import KINDS

from mindgen.adapters.loader import load_adapter
from mindgen.errors import MindgenError

CASES = [(damage, seed) for damage, count in KINDS.items() for seed in range(count)]
MAX_BYTES = 64_000_000


def test_count():
    assert len(CASES) == 500


def test_the_good_one_loads(tmp_path):
    write_good(tmp_path / "A1")
    assert load_adapter("A1", tmp_path / "A1", MODULES).pairs.keys() == MODULES.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("damage", "seed"), CASES, ids=[f"{damage.__name__}-{seed}" for damage, seed in CASES])
def test_refused(damage, seed, tmp_path):
    folder, marker = tmp_path / "A1", tmp_path / "executed"
    write_good(folder)
    damage(folder, random.Random(seed), marker)
    tracemalloc.start()
    try:
        with pytest.raises(MindgenError) as raised:
            load_adapter("A1", folder, MODULES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(raised.value)
    assert message and message.isprintable() and len(message) < 2000, message
    assert peak < MAX_BYTES
    assert not marker.exists()
