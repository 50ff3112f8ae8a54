"""Where the memory goes: sizes, shares, and what does not fit."""

from dataclasses import replace

import pytest

from mindgen.engine import memory_plan
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.memory_plan import plan_memory
from mindgen.errors import ConfigError
from mindgen.store import embedded
from mindgen.system.memory import free_memory, parse_size
from mindgen.weights.architecture import read_model_config

GIB = 2**30
BLOCK_BYTES = 2 * 4 * 2 * 32 * 16  # keys and values, layers, KV heads, head size, tokens: of one byte each


@pytest.fixture(scope="module")
def model():
    return read_model_config(embedded.demo_folder())


@pytest.fixture(autouse=True)
def four_gib_are_free(monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory", lambda: 4 * GIB)


def plan(model, dtype: str = "bfloat16", max_model_len: int = 512, weights: int = 0, adapters: int = 0, **limits):
    model = replace(model, max_position=max_model_len)
    return plan_memory(EngineSpec(model, dtype, EngineConfig(**limits)), [weights], [adapters])


@pytest.mark.parametrize(("dtype", "item_size"), [("bfloat16", 2), ("float16", 2), ("float32", 4)])
@pytest.mark.parametrize("block_size", [1, 8, 16])
def test_a_block_holds_the_keys_and_values_of_its_tokens(model, dtype, item_size, block_size):
    assert plan(model, dtype, block_size=block_size).block_bytes == BLOCK_BYTES // 16 * block_size * item_size


def test_as_many_blocks_as_full_sequences_need(model):
    made = plan(model, max_model_len=500, max_num_seqs=7)
    assert made.num_blocks == 7 * 32  # 500 tokens lie in 32 blocks of 16
    assert made.num_full_sequences == 7


@pytest.mark.parametrize(
    ("utilization", "size"),
    [
        ("3MiB", 3 * 2**20),
        ("1.5 MB", 1_500_000),
        ("200000", 200_000),
        (0.25, GIB - 900 * 2**20 - 100 * 2**20),
        (0.5, 2 * GIB - 1000 * 2**20),
    ],
)
def test_a_share_is_of_everything_and_a_size_of_the_cache_alone(model, utilization, size):
    made = plan(
        model, weights=900 * 2**20, adapters=100 * 2**20, memory_utilization=utilization, max_num_seqs=2048,
        max_model_len=1 << 20,
    )  # fmt: skip
    assert made.num_blocks == size // (2 * BLOCK_BYTES)
    assert 0 <= size - made.num_blocks * made.block_bytes < made.block_bytes


def test_num_blocks_overrides(model):
    assert plan(model, num_blocks=3, memory_utilization=0.001).num_blocks == 3
    assert plan(model, num_blocks=1000, memory_utilization="1MiB").num_blocks == 1000


def test_swap_space_is_counted_in_blocks(model):
    made = plan(model, num_blocks=3, swap_space=0.5)
    assert made.num_swap_blocks == GIB // 2 // made.block_bytes
    assert plan(model).num_swap_blocks == 0
    assert "512 MiB to swap" in str(made)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"num_blocks": 10**6}, "KV cache and swap_space need .* lower num_blocks, memory_utilization or swap_space"),
        ({"swap_space": 3.999}, "swap_space need 4211 MiB, and 4096 MiB are free"),
        ({"memory_utilization": 0.02, "weights": GIB}, "memory_utilization .0.02. leaves 0 MiB for the KV cache"),
        ({"memory_utilization": "1000"}, "and a block takes 16384 bytes: raise it"),
        ({"memory_utilization": "5GiB", "max_model_len": 1 << 22}, "5220 MiB, and 4096 MiB are free"),
        ({"memory_utilization": "4 apples"}, "a size like 4GiB, not '4 apples'"),
        ({"memory_utilization": "-1"}, "a size like 4GiB, not '-1'"),
    ],
)
def test_what_does_not_fit(model, limits, message):
    with pytest.raises(ConfigError, match=message):
        plan(model, **{"weights": 100 * 2**20, **limits})


def test_the_plan_says_where_the_memory_goes(model):
    made = plan(model, weights=300 * 2**20, adapters=20 * 2**20, num_blocks=800, max_model_len=1000)
    assert str(made) == (
        "memory: weights 300 MiB, adapters 20 MiB, KV cache 12 MiB "
        "(800 blocks of 16 tokens: 12.7 sequences of 1000)"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * GIB), (" 512 mb ", 512_000_000), ("1KiB", 1024), ("2.5kb", 2500), ("7", 7)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "1TiBs", "1e9", "nan", "1 2", "½GiB"])
def test_no_sizes(text):
    with pytest.raises(ConfigError):
        parse_size(text)


def test_free_memory_is_what_the_system_says():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < free_memory() <= total


def test_a_devices_memory_is_not_the_hosts(model):
    def plan_device(weights: int, **limits: object):
        spec = EngineSpec(model, "bfloat16", EngineConfig(max_model_len=512, **limits))
        return plan_memory(spec, [weights], [0], is_in_host_memory=False)

    made = plan_device(30 * GIB, memory_utilization="40GiB", swap_space=1.0)
    assert made.num_blocks == 32 * 32
    with pytest.raises(ConfigError, match="on Ascend memory_utilization must be the size of the KV cache, like 20GiB"):
        plan_device(0, memory_utilization=0.9)
    with pytest.raises(ConfigError, match="swap_space needs 5120 MiB, and 4096 MiB are free: lower it"):
        plan_device(0, swap_space=5.0)
