"""The base model's weights change in a running engine, which answers as a fresh one of these weights does."""

import mindspore
import numpy as np
import pytest
import torch
from loops import engine_of
from mindformers_files import write_fused
from safetensors.torch import load_file, save_file
from tiny_models import load_oracle
from updates import PROMPTS, answers, make_models, tokens

from mindgen import LLM
from mindgen.errors import ConfigError, ModelError, WeightUpdateError
from mindgen.weights.architecture import architecture_of
from mindgen.weights.weight_files import find_weights


@pytest.mark.parametrize("sizes", [{}, {"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}])
def test_the_answer_is_a_fresh_engines(folders, fresh, sizes):
    llm = LLM(folders[0], block_size=4, **sizes)
    before = answers(llm)
    assert answers(llm)[0].num_cached_tokens > 0  # the prefix cache holds what the old weights have computed
    assert (tokens(before), llm.weight_checksum) == fresh[0] or sizes
    assert {(output.weight_checksum, output.weight_version) for output in before} == {(fresh[0][1], 0)}
    report = llm.update_weights(folders[1])
    after = answers(llm)
    assert [each[0] for each in tokens(after)] == [each[0] for each in fresh[1][0]]
    assert after[0].num_cached_tokens == 0
    assert {(output.weight_checksum, output.weight_version) for output in after} == {(fresh[1][1], 1)}
    assert (
        (report.checksum_before, report.checksum_after)
        == (fresh[0][1], fresh[1][1])
        == (fresh[0][1], llm.weight_checksum)
    )
    assert (report.version, report.missing, report.bytes_received) == (1, [], report.bytes_received)
    assert report.bytes_bound >= report.bytes_received == sum(each.nbytes for each in weights(folders[1]).values())
    llm.update_weights(folders[0])
    assert tokens(answers(llm)) == tokens(before) and llm.weight_version == 2
    engine_of(llm).check_integrity()
    llm.close()


def test_the_answer_is_transformers(llm, folders):
    llm.update_weights(folders[1])
    oracle = load_oracle(folders[1], torch.float32)
    for prompt, output in zip(PROMPTS, answers(llm), strict=True):
        with torch.no_grad():
            logits = oracle(torch.tensor([[*prompt, *output.outputs[0].token_ids]])).logits[0]
        rows = logits[len(prompt) - 1 : -1]
        chosen = rows.gather(1, torch.tensor(output.outputs[0].token_ids)[:, None])[:, 0]
        assert (rows.max(1).values - chosen).max() < 0.5  # bfloat16 may take the second of two that are about as likely


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("form", ["torch", "numpy", "mindspore", "pairs", "safetensors", "mindformers"])
def test_from_every_library(llm, folders, fresh, form, tmp_path):
    tensors = weights(folders[1])
    if form == "safetensors":
        save_file(tensors, tmp_path / "some.safetensors")
        given = tmp_path / "some.safetensors"
    elif form == "mindformers":
        mapped = find_weights(folders[1], None, 1).map(0)
        rename = architecture_of(folders[1]).with_mindformers_names
        given = rename(mapped)
        assert "model.layers.0.attention.wq.weight" in given
    elif form == "mindspore":
        given = {name: mindspore.Tensor(each.float().numpy(), mindspore.bfloat16) for name, each in tensors.items()}
    else:
        given = tensors if form == "torch" else {name: each.float().numpy() for name, each in tensors.items()}
        given = iter(given.items()) if form == "pairs" else given
    report = llm.update_weights(given)
    assert report.checksum_after == fresh[1][1] and tokens(answers(llm)) == fresh[1][0]


@pytest.mark.parametrize("kind", ["gpt2", "glm"])
def test_what_a_checkpoint_has_fused_is_taken_apart(kind, tmp_path):
    """GPT-2's c_attn, whose rows are columns as well, and GLM's gate_up_proj, under their own names."""
    old, new = make_models(tmp_path, kind)
    expected, llm = LLM(new, block_size=4), LLM(old, block_size=4)
    tensors = weights(new)
    assert any(name.endswith(("c_attn.weight", "gate_up_proj.weight")) for name in tensors)
    report = llm.update_weights(tensors)
    assert (report.missing, report.checksum_after) == ([], expected.weight_checksum)
    assert tokens(answers(llm)) == tokens(answers(expected))
    for each in (llm, expected):
        each.close()


@pytest.mark.parametrize("layout", ["plain", "grouped"])
def test_mindformers_fused_weights_are_taken_apart_in_the_order_that_is_said(tmp_path, layout):
    old, new = make_models(tmp_path, "qwen2-tied")
    given = load_file(write_fused(new, tmp_path / "fused", layout) / "model.safetensors")
    expected, llm = LLM(new, block_size=4), LLM(old, block_size=4)
    assert any(name.endswith("w_qkv.weight") for name in given)
    with pytest.raises(WeightUpdateError, match="is one of MindFormers' fused weights .* say qkv_concat_layout"):
        llm.update_weights(given)
    report = llm.update_weights(given, qkv_concat_layout=layout)
    assert (report.missing, report.checksum_after) == ([], expected.weight_checksum)
    for each in (llm, expected):
        each.close()


def test_a_trainer_may_use_its_memory_again(llm, folders, fresh):
    buffer = np.empty(1 << 20, np.float32)

    def tensors():
        for name, tensor in weights(folders[1]).items():
            part = buffer[: tensor.numel()].reshape(tensor.shape)
            part[...] = tensor.float().numpy()
            yield name, part

    llm.update_weights(tensors())
    buffer[:] = 7
    assert tokens(answers(llm)) == fresh[1][0]


def test_parts_add_up(llm, folders, fresh):
    tensors = weights(folders[1])
    names = sorted(tensors)
    first = llm.update_weights({name: tensors[name] for name in names[:7]})
    assert len(first.missing) == len(names) - 7 and first.tensors == 7
    assert first.checksum_after not in (fresh[0][1], fresh[1][1])
    second = llm.update_weights({name: tensors[name] for name in names[7:]})
    assert second.checksum_after == fresh[1][1] and tokens(answers(llm)) == fresh[1][0]
    with pytest.raises(WeightUpdateError, match=r"tensors that are missing: '.*' and \d+ more"):
        llm.update_weights({names[0]: tensors[names[0]] * 2}, expect_all=True)


def test_a_tied_head_beside_its_embedding(llm, folders, fresh):
    tensors = weights(folders[1])
    embedding = tensors["model.embed_tokens.weight"]
    llm.update_weights([*tensors.items(), ("lm_head.weight", embedding)])
    assert tokens(answers(llm)) == fresh[1][0]
    with pytest.raises(WeightUpdateError, match=r"came twice: 'lm_head.weight'"):
        llm.update_weights({"model.embed_tokens.weight": embedding * 2, "lm_head.weight": embedding})


FIRST = "model.layers.0.mlp.down_proj.weight"
REFUSED = {
    "another shape": (lambda t: {FIRST: t[FIRST].T}, r"has shape \(200, 96\), and the model's .* has \(96, 200\)"),
    "no numbers": (lambda t: {FIRST: t[FIRST].int()}, r"is int32: expected one of float32"),
    "NaN": (lambda t: {FIRST: t[FIRST] * float("nan")}, r"NaN or infinite: set allow_nan"),
    "unknown": (lambda t: {"model.layers.9.x.weight": t[FIRST], "y": t[FIRST]}, r"2 names that .* have: .*'y'"),
    "twice": (lambda t: [(FIRST, t[FIRST] * 2), (FIRST, t[FIRST])], rf"1 names that came twice: '{FIRST}'"),
    "nothing": (lambda t: {}, r"no tensor that the model has: nothing would change"),
    "the same": (lambda t: t, r"are those that are served already: set expect_change to False"),
    "no pair": (lambda t: [1, 2], r"expected a name and a tensor, not 1"),
    "no tensor": (lambda t: {FIRST: "weights"}, r"must be a tensor of numpy, MindSpore or torch, not 'weights'"),
    "no names": (lambda t: 7, r"expected names and tensors, a file or a folder, not 7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(llm, folders, fresh, case):
    make, message = REFUSED[case]
    version = llm.weight_version
    with pytest.raises(WeightUpdateError, match=message) as caught:
        llm.update_weights(make(weights(folders[0])))
    assert "\n" not in str(caught.value)
    assert (llm.weight_version, llm.weight_checksum) == (version, fresh[0][1])
    assert tokens(answers(llm)) == fresh[0][0]


def test_what_is_refused_besides(llm, folders, tmp_path):
    with pytest.raises(WeightUpdateError, match=r"version 0, and version \d+ is served: versions go up"):
        llm.update_weights(folders[1], version=0)
    with pytest.raises(ConfigError, match=r"no option 'in_fligth' \(did you mean"):
        llm.update_weights(folders[1], in_fligth="abort")
    with pytest.raises(ConfigError, match="in_flight must be one of finish, abort, continue, not 'wait'"):
        llm.update_weights(folders[1], in_flight="wait")
    with pytest.raises(ModelError, match="no such checkpoint"):
        llm.update_weights(tmp_path / "nowhere")

    def breaks():
        yield from list(weights(folders[1]).items())[:3]
        raise OSError("the trainer is gone")

    before = llm.weight_checksum
    with pytest.raises(OSError, match="the trainer is gone"):
        llm.update_weights(breaks())
    assert llm.weight_checksum == before
    llm.update_weights({FIRST: weights(folders[0])[FIRST] * float("nan")}, allow_nan=True)
    assert llm.update_weights(folders[0]).checksum_after == before


def test_two_at_once(llm, folders):
    def asks_again():
        with pytest.raises(WeightUpdateError, match="new weights for base are on their way: finish or cancel"):
            llm.update_weights(folders[1])
        yield from weights(folders[1]).items()

    assert llm.update_weights(asks_again()).modules > 0
