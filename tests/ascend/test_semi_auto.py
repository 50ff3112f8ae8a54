"""MindSpore's compiler, for Ascend: every network slices as its layers declare, and communicates where it has to."""

import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import dry_run
import numpy as np
import pytest
from adapter_options import make_option

from mindgen.weights.architecture import architectures, read_model_config
from mindgen.weights.folder import map_weights
from mindgen.weights.network_names import network_weights

pytestmark = pytest.mark.slow

# The first and the last rank; MindSpore's dry run of level 1 as one in between.
RANKS = [(2, 0), (2, 1), (4, 0), (4, 3), (8, 0), (8, 7)]
RUN_AS = (4, 1)
STEPS = ["decode", "decode with adapters", "prompts", "prompts with adapters"]
NUM_LEVELS = 2  # of the worker's adapter slots

_SPLIT_OUTPUTS = r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj|c_fc|embed_tokens|wte)\b|^lm_head\b"
_SPLIT_INPUTS = r"\.(o_proj|down_proj|c_proj)\b"


def expected_map(name: str, num_axes: int) -> list[int]:
    """0 for the axis that the ranks split: written once more, apart from what the layers declare."""
    whole = [-1] * num_axes
    if name.endswith("_cache"):
        return [-1, -1, 0, -1]
    by_outputs, by_inputs = re.search(_SPLIT_OUTPUTS, name), re.search(_SPLIT_INPUTS, name)
    if name.endswith(".table"):  # DoRA's scales and biases (E, out); every rank has all logits
        return [-1, 0] if by_outputs and not name.startswith("lm_head") else whole
    if "lora_a" in name:  # (E, in, r)
        return [-1, 0, -1] if by_inputs else whole
    if "lora_b" in name:  # (E, r, out)
        return [-1, -1, 0] if by_outputs else whole
    if by_outputs:  # (out, in), or a bias
        return [0, *whole[1:]]
    return [-1, 0] if by_inputs and name.endswith(".weight") else whole


def kinds_of(models, turn: int) -> dict:
    """One kind of each form that a network takes; those that have several take turns."""
    by_form: dict[tuple, list[str]] = {}
    for kind, folder in models.items():
        config = read_model_config(folder)
        network = architectures()[config.architecture].network
        by_form.setdefault((network, config.qkv_bias, config.query_key_norm), []).append(kind)
    assert {network for network, *_ in by_form} == {each.network for each in architectures().values()}
    chosen = [kinds[turn % len(kinds)] for kinds in by_form.values()]
    return {kind: models[kind] for kind in chosen}


@pytest.fixture(scope="session")
def answers(models, tmp_path_factory):
    """By (num_ranks, rank): of each kind of model what its worker answers."""
    base = tmp_path_factory.mktemp("ranks")

    def ask(turn: int, place: tuple[int, int]) -> dict:
        kinds, run = kinds_of(models, turn), place == RUN_AS
        work = base / "{}_{}".format(*place)
        requests = [
            {"folder": str(folder), "run": run, "weights": str(work / f"{kind}.npz")} for kind, folder in kinds.items()
        ]
        return dict(zip(kinds, dry_run.compile_as(work, *place, requests, level=int(run)), strict=True))

    places = [*RANKS, RUN_AS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(ask, range(len(places)), places))
    result = dict(zip(places, found, strict=True))
    for place, kinds in result.items():
        for kind, answer in kinds.items():
            assert "error" not in answer, f"{kind} as rank {place}: {answer}"
            answer["weights"] = dict(np.load(base / "{}_{}".format(*place) / f"{kind}.npz"))
    return result


def test_every_kind_is_compiled(answers, models):
    assert {kind for kinds in answers.values() for kind in kinds} == models.keys()


@pytest.mark.parametrize("place", RANKS)
def test_parameters_are_sliced_as_declared(answers, place):
    """The worker has compared them with the declarations already; here they are compared with what should be."""
    for kind, answer in answers[place].items():
        for step in STEPS:
            maps = answer[step]["tensor_maps"]
            assert maps == {name: expected_map(name, len(found)) for name, found in maps.items()}, (kind, step)
            adapters = [name for name in maps if "lora" in name]
            assert bool(adapters) == ("adapters" in step)


@pytest.mark.parametrize("place", RANKS)
def test_collectives_are_where_they_must_be(answers, place):
    """Sums after the embedding, the row-parallel matmuls and the first of their adapters'; the logits gathered."""
    for kind, answer in answers[place].items():
        for step in STEPS:
            expected = {"AllReduce of Mul": 1, "AllReduce of MatMul": 4, "AllGather of MatMul": 1}
            if "adapters" in step:
                expected["AllReduce of GroupedMatmul"] = 4 * NUM_LEVELS
            assert answer[step]["collectives"] == expected, (kind, step)


@pytest.mark.parametrize("place", RANKS)
def test_attention_has_the_heads_of_its_rank(answers, models, place):
    for kind, answer in answers[place].items():
        head_size = read_model_config(models[kind]).head_size
        for step in STEPS:
            shapes = answer[step]["slice_shapes"]
            queries = [shape[0] for name, shape in shapes.items() if name.endswith("q_proj.weight")]
            assert answer[step]["heads"] == [size // head_size for size in queries], (kind, step)


@pytest.mark.parametrize("place", RANKS)
def test_each_rank_loads_its_slices(answers, models, place):
    num_ranks, rank = place
    for kind, answer in answers[place].items():
        tensors = network_weights(models[kind], map_weights(models[kind]))
        loaded = answer["weights"]
        compared = Counter()
        for name, tensor in tensors.items():
            whole = tensor.as_dtype("float32")
            cuts = expected_map(name, whole.ndim)
            if 0 in cuts:
                axis = cuts.index(0)
                if loaded[name].shape[axis] * num_ranks != whole.shape[axis]:
                    continue  # padded, or heads that several ranks have
                whole = np.split(whole, num_ranks, axis)[rank]
            np.testing.assert_array_equal(loaded[name], whole, err_msg=f"{kind} {name}")
            compared[0 in cuts] += 1
        assert compared[True] > 4 and compared[False] > 4, kind


def test_a_dry_run_gives_logits(answers, models):
    for kind, answer in answers[RUN_AS].items():
        for step in STEPS:
            assert answer[step]["logits"] == [2, read_model_config(models[kind]).vocab_size]


def test_adapters_with_more_than_lora(models, tmp_path):
    """DoRA, biases and LoRA on the head have parameters of their own, which lie and gather as they must."""
    folder = models["qwen3-untied"]
    adapters = {name: str(make_option(name, folder, tmp_path)) for name in ("dora-head", "dora-bias", "dora-embedding")}
    served, refused = [adapters["dora-head"], adapters["dora-bias"]], [adapters["dora-embedding"]]
    request = {"folder": str(folder), "run": True, "adapters": served, "refused": refused}
    (answer,) = dry_run.compile_as(tmp_path / "work", 4, 2, [request], level=1)
    assert "error" not in answer, answer
    for step in ("decode with adapters", "prompts with adapters"):
        maps = answer[step]["tensor_maps"]
        assert maps == {name: expected_map(name, len(found)) for name, found in maps.items()}
        tables = {name.rsplit(".", 3)[0] for name in maps if name.endswith(".table")}
        assert {"lm_head", "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"} <= tables
        assert answer[step]["collectives"] == {
            "AllReduce of Mul": 1,
            "AllReduce of MatMul": 4,
            "AllReduce of GroupedMatmul": 4 * NUM_LEVELS,
            "AllGather of Cast": 1 + NUM_LEVELS,
        }
        assert answer[step]["logits"] == [2, read_model_config(folder).vocab_size]
    (message,) = answer["refused"]
    assert message.startswith("adapter dora-embedding: LoRA on model.embed_tokens is not served on Ascend: merge it")


def test_refusals(models, tmp_path):
    """A wrong number of slices, and a dtype that Ascend's attention does not have."""
    folder = str(models["llama-multi-head"])
    three, float32 = dry_run.compile_as(
        tmp_path, 4, 0, [{"folder": folder, "cuts": 3}, {"folder": folder, "dtype": "float32"}]
    )
    assert re.match("MindSpore does not slice the network: .*", three["error"])
    assert float32["error"] == "Ascend's attention ops take float16 and bfloat16, not float32: set dtype"
