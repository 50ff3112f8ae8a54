"""The strategy file that MindSpore's compiler writes speaks Hugging Face names, and MindSpore's own tools take it."""

import dry_run
import mindspore
import numpy as np
import pytest
from mindspore import Tensor

from mindgen.weights.folder import map_weights

NUM_RANKS = 4
SPLIT_OUTPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head")
SPLIT_INPUTS = ("o_proj", "down_proj")


@pytest.fixture(scope="module")
def strategy_file(models, tmp_path_factory):
    work = tmp_path_factory.mktemp("strategy")
    path = work / "strategy.ckpt"
    request = {"folder": str(models["llama-multi-head"]), "strategy_file": str(path)}
    (answer,) = dry_run.compile_as(work, NUM_RANKS, NUM_RANKS - 1, [request])
    assert "error" not in answer
    return path


def slice_of(name: str, whole: np.ndarray, rank: int) -> np.ndarray:
    module = name.split(".")[-2]
    if module in SPLIT_OUTPUTS:
        return np.split(whole, NUM_RANKS, 0)[rank]
    return np.split(whole, NUM_RANKS, 1)[rank] if module in SPLIT_INPUTS else whole


def test_full_to_sharded_and_back(strategy_file, models, tmp_path):
    tensors = map_weights(models["llama-multi-head"])
    weights = {name: tensor.as_dtype("float32") for name, tensor in tensors.items()}
    assert mindspore.build_searched_strategy(str(strategy_file)).keys() == weights.keys()

    (tmp_path / "whole/rank_0").mkdir(parents=True)
    saved = [{"name": name, "data": Tensor(weight)} for name, weight in weights.items()]
    mindspore.save_checkpoint(saved, str(tmp_path / "whole/rank_0/whole.safetensors"), format="safetensors")
    mindspore.transform_checkpoints(
        str(tmp_path / "whole"), str(tmp_path / "ranks"), "part", None, str(strategy_file), output_format="safetensors"
    )
    for rank in range(NUM_RANKS):
        (path,) = (tmp_path / f"ranks/rank_{rank}").glob("*.safetensors")
        part = mindspore.load_checkpoint(str(path), format="safetensors")
        assert part.keys() == weights.keys()
        for name, weight in weights.items():
            np.testing.assert_array_equal(part[name].asnumpy(), slice_of(name, weight, rank), err_msg=name)

    mindspore.transform_checkpoints(
        str(tmp_path / "ranks"),
        str(tmp_path / "joined"),
        "whole",
        str(strategy_file),
        None,
        output_format="safetensors",
    )
    (path,) = (tmp_path / "joined").rglob("*.safetensors")
    joined = mindspore.load_checkpoint(str(path), format="safetensors")
    for name, weight in weights.items():
        np.testing.assert_array_equal(joined[name].asnumpy(), weight, err_msg=name)
