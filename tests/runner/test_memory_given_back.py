"""A model that is closed leaves nothing behind, though MindSpore would keep each graph that it has compiled."""

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from mindgen import LLM, SamplingParams

CACHE_BYTES = 64 << 20
PARAMS = SamplingParams(temperature=0, max_tokens=3)


@pytest.fixture
def traced() -> Iterator[None]:
    """numpy tells tracemalloc of its arrays."""
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


def use(executor: str, dtype: str) -> None:
    # A block of the demo has 16 tokens, and takes 16 KiB in bfloat16.
    num_blocks = CACHE_BYTES >> (14 if dtype == "bfloat16" else 15)
    llm = LLM("demo", dtype=dtype, executor=executor, num_blocks=num_blocks)
    llm.generate(["One, two,"] * 3, PARAMS, [None, "A1", "A2"])
    assert tracemalloc.get_traced_memory()[0] > CACHE_BYTES
    llm.close()


DTYPES = ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("executor", "dtype"),
    [("mindgen", "bfloat16"), *(pytest.param("mindspore", each, marks=pytest.mark.slow) for each in DTYPES)],
)
def test_a_closed_model_gives_its_memory_back(traced, executor, dtype):
    use(executor, dtype)
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] < CACHE_BYTES / 2


def test_a_process_ends_well_whose_model_is_open_still():
    """Also where models are closed after MindSpore has ended, as finalizers are run in an order of their own."""
    code = """
import weakref
class Early: pass
early = Early()
weakref.finalize(early, print, "ended")
from mindgen import LLM, SamplingParams
llm = LLM("demo")
print(len(llm.generate("One,", SamplingParams(max_tokens=3, ignore_eos=True))[0].outputs[0].token_ids))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "3\nended\n"), done.stderr
