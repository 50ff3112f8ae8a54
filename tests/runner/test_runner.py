"""A step that the kernels refuse: one line, and the next step works."""

import numpy as np
import pytest
import torch
from probe import Probe
from tiny_models import make_model

from mindgen.errors import KernelError

PROMPT = [5, 6, 7, 8]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_block_outside_the_cache(tmp_path, dtype, executor):
    probe = Probe(make_model("qwen2-tied", tmp_path, torch.float32), dtype, executor=executor)
    before = probe.logits([PROMPT])
    sequence = probe.open(PROMPT)
    sequence.block_table = [10_000]
    with pytest.raises(KernelError, match="AndCache.*slot") as raised:
        probe.advance([sequence])
    assert "\n" not in str(raised.value)
    np.testing.assert_array_equal(probe.logits([PROMPT]), before)
