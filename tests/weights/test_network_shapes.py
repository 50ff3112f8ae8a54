"""The tensors that networks ask for, as they are known without MindSpore."""

import pytest
import torch
from scratch_gpt import SIZES, random_weights, save
from tiny_models import KINDS, make_model
from tiny_tokenizers import make_tokenizer

from mindgen.models.registry import declared_layouts
from mindgen.store.find_model import find_model
from mindgen.weights.architecture import architectures, read_model_config

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("kind", [*KINDS, "scratch_gpt"])
def test_they_are_what_the_network_s_layers_declare(kind, tmp_path):
    if kind == "scratch_gpt":
        folder = find_model(save(make_tokenizer("byte_level_bpe", tmp_path) / "x.pt", random_weights(), SIZES))
    else:
        folder = make_model(kind, tmp_path / "model", torch.float32)
    config = read_model_config(folder)
    (layouts,) = declared_layouts(config, 1)
    assert architectures()[config.architecture].tensor_shapes(config) == {
        name: layout.shape for name, layout in layouts.items()
    }
