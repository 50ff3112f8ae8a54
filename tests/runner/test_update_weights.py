"""New weights in a running network: once committed, it is the network of a checkpoint that has them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from probe import Probe
from tiny_models import VOCAB_SIZE, make_model

from mindgen.errors import ModelError
from mindgen.weights.architecture import architecture_of, read_model_config
from mindgen.weights.weight_files import find_weights

PROMPTS = [
    np.random.default_rng(seed).integers(3, VOCAB_SIZE, length).tolist() for seed, length in enumerate((9, 1, 5))
]


@pytest.fixture(
    scope="module",
    params=[
        "llama3-grouped-tied",
        pytest.param("qwen3-untied", marks=pytest.mark.slow),
        pytest.param("gpt2", marks=pytest.mark.slow),
    ],
)
def folders(request, tmp_path_factory):
    """Two checkpoints of the same shape."""
    root = tmp_path_factory.mktemp("update")
    return [make_model(request.param, root / str(number), torch.bfloat16, seed=number) for number in (1, 2)]


def stage(probe: Probe, folder: Path) -> int:
    """The bytes of the folder's whole checkpoint that the ranks keep."""
    tensors = architecture_of(folder).translate(find_weights(folder, None, 1).map(0), read_model_config(folder))
    return sum(probe.runner.stage_weight(name, each.dtype, each.data) for name, each in tensors.items())


@pytest.mark.parametrize(("num_ranks", "num_stages"), [pytest.param(1, 1, marks=pytest.mark.slow), (2, 1), (1, 2)])
def test_a_whole_checkpoint_tensor_by_tensor(num_ranks, num_stages, folders):
    old, new = (Probe(folder, "bfloat16", num_ranks=num_ranks, num_stages=num_stages) for folder in folders)
    expected = new.logits(PROMPTS)
    before = old.logits(PROMPTS)
    assert np.abs(before - expected).max() > 0.1
    staged = stage(old, folders[1])
    np.testing.assert_array_equal(old.logits(PROMPTS), before)
    assert old.runner.commit_weights() == staged == sum(old.runner.report.weights.values())
    np.testing.assert_array_equal(old.logits(PROMPTS), expected)
    stage(old, folders[0])
    old.runner.discard_weights()
    assert old.runner.commit_weights() == 0
    np.testing.assert_array_equal(old.logits(PROMPTS), expected)
    stage(old, folders[0])
    old.runner.commit_weights()
    np.testing.assert_array_equal(old.logits(PROMPTS), before)
    assert old.runner.drop_weights() > 0
    old.runner.restore_weights()
    np.testing.assert_array_equal(old.logits(PROMPTS), before)
    old.runner.close()
    new.runner.close()


def test_what_has_no_place(folders):
    probe = Probe(folders[0], "bfloat16")
    before = probe.logits(PROMPTS)
    values = np.ones((3, 5), np.float32)
    assert probe.runner.stage_weight("model.layers.99.mlp.up_proj.weight", "float32", values) == 0
    with pytest.raises(ModelError, match=r"has shape .*, and the model's has"):
        probe.runner.stage_weight(next(iter(probe.runner.report.shapes)), "float32", values)
    assert probe.runner.commit_weights() == 0
    np.testing.assert_array_equal(probe.logits(PROMPTS), before)
