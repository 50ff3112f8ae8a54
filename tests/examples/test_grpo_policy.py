"""The policy's arithmetic is that of transformers and peft, and its gradients those of torch."""

import json

import mindspore
import numpy as np
import pytest
import torch
from grpo.objective import Given, clipped_loss, group_advantages
from grpo.packing import PackedSize, pack
from grpo.policy import LoraSettings, Policy
from mindspore import Tensor
from peft import PeftModel
from tiny_models import load_oracle, make_model

from mindgen.errors import ModelError

PROMPT, ANSWERS = [1, 5, 9, 200, 31], [[7, 8, 9, 10], [11], [12, 13, 14, 15, 16, 17]]
ADVANTAGES = [1.2, -0.3, -0.9]
CLIP, KL_COEFFICIENT = 0.2, 0.1
LORA = LoraSettings(4, 8, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))


@pytest.fixture(params=["llama3-grouped-tied", "llama-multi-head", "llama-biased-one-kv-head"])
def models(request, tmp_path):
    """A policy whose B are not 0, and peft's model of the same, from the policy's own folder."""
    folder = make_model(request.param, tmp_path / "model", torch.float32)
    policy = Policy(str(folder), "float32", LORA, 32, seed=1)
    random = np.random.default_rng(2)
    for parameter in policy.parameters:
        parameter.set_data(Tensor(random.normal(0, 0.1, parameter.shape).astype(np.float32)))
    policy.save(tmp_path / "policy")
    theirs = PeftModel.from_pretrained(load_oracle(folder, torch.float32), tmp_path / "policy", is_trainable=True)
    return policy, theirs


def their_logprobs(model) -> torch.Tensor:
    """(N,), each answer by itself behind the prompt."""
    found = []
    for answer in ANSWERS:
        logits = model(torch.tensor([PROMPT + answer])).logits[0, len(PROMPT) - 1 : -1]
        found.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None])[:, 0])
    return torch.cat(found)


def given(old: np.ndarray) -> dict[str, np.ndarray]:
    """What the loss takes besides; some ratios are beyond the clip, and the last two places are padding."""
    lengths = [len(answer) for answer in ANSWERS]
    random = np.random.default_rng(3)
    flat = {
        "old_logprobs": old + random.normal(0, 0.3, len(old)),
        "base_logprobs": old + random.normal(0, 0.3, len(old)),
        "advantages": np.repeat(ADVANTAGES, lengths),
        "shares": np.repeat(1 / np.array(lengths), lengths),
    }
    return {name: values.astype(np.float32) for name, values in flat.items()}


def their_loss(logprobs: torch.Tensor, flat: dict[str, np.ndarray]) -> torch.Tensor:
    """Equations 3 and 4 of arXiv:2402.03300."""
    old, base, advantages, shares = (torch.tensor(flat[name]) for name in Given._fields)
    ratios = torch.exp(logprobs - old)
    gains = torch.minimum(ratios * advantages, ratios.clip(1 - CLIP, 1 + CLIP) * advantages)
    costs = torch.exp(base - logprobs) - (base - logprobs) - 1
    return -((gains - KL_COEFFICIENT * costs) * shares).sum()


def test_the_gradients_of_all_a_and_b_are_those_of_torch(models):
    policy, theirs = models
    expected = their_logprobs(theirs)
    flat = given(expected.detach().numpy())
    their_loss(expected, flat).backward()
    num_targets = len(expected)
    group = pack(PROMPT, ANSWERS, PackedSize(len(PROMPT) + 11, num_targets + 2))
    padding = [Tensor(np.pad(flat[name], (0, 2))) for name in Given._fields]

    def loss(*inputs):
        logprobs = policy.logprobs(inputs[:5])
        return clipped_loss(logprobs, inputs[5:], CLIP, KL_COEFFICIENT), logprobs

    differentiated = mindspore.value_and_grad(loss, None, policy.parameters, has_aux=True)
    compiled = mindspore.jit(differentiated, backend="ms_backend", jit_level="O0")
    (_, logprobs), gradients = compiled(*group, *padding)
    np.testing.assert_allclose(logprobs.asnumpy()[:num_targets], expected.detach().numpy(), atol=2e-5)
    wanted = {name.replace(".default", ""): each.grad for name, each in theirs.named_parameters() if "lora_" in name}
    assert len(wanted) == len(policy.parameters) == 2 * 7 * 2
    errors = []
    for parameter, gradient in zip(policy.parameters, gradients, strict=True):
        theirs_here = wanted[parameter.name].numpy()
        errors.append(np.abs(gradient.asnumpy() - theirs_here).max() / np.abs(theirs_here).max())
    print(f"largest relative error of a gradient: {max(errors):.1e}")
    assert max(errors) < 1e-4


def test_an_adapter_at_first_changes_nothing_and_is_drawn_by_the_seed(tmp_path):
    folder = str(make_model("llama3-grouped-tied", tmp_path / "model", torch.float32))
    policies = [Policy(folder, "float32", LoraSettings(), 32, seed) for seed in (1, 1, 2)]
    one, same, other = (policy.tensors() for policy in policies)
    a = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert one[a].shape == (8, 96) and 0.05 < np.abs(one[a]).max() <= 96**-0.5
    assert all(not each.any() for name, each in one.items() if "lora_B" in name)
    assert np.array_equal(one[a], same[a]) and not np.array_equal(one[a], other[a])
    size = PackedSize.of(len(PROMPT), 3, 6)
    logprobs = policies[0].logprobs(pack(PROMPT, ANSWERS, size)).asnumpy()[:11]
    with torch.no_grad():
        expected = their_logprobs(load_oracle(folder, torch.float32)).numpy()
    np.testing.assert_allclose(logprobs, expected, atol=2e-5)
    policies[0].save(tmp_path / "policy")
    assert json.loads((tmp_path / "policy/adapter_config.json").read_text())["r"] == 8


def test_advantages_are_those_of_numpy():
    rewards = [[0.0, 1.0, 1.0, 0.0], [0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.4, 0.9]]
    found = group_advantages(rewards)
    for row, advantages in zip(rewards, found, strict=True):
        mean = sum(row) / 4
        deviation = (sum((each - mean) ** 2 for each in row) / 4) ** 0.5
        np.testing.assert_allclose(advantages, [(each - mean) / (deviation + 1e-6) for each in row])
    assert not found[1].any()


def test_a_model_that_is_not_like_llama_is_refused(tmp_path):
    for kind in ("gpt2", "qwen3-untied", "glm"):
        folder = make_model(kind, tmp_path / kind, torch.float32)
        with pytest.raises(ModelError, match="models like Llama and Qwen2 only"):
            Policy(str(folder), "float32", LoraSettings(), 32, 0)
    folder = make_model("llama-multi-head", tmp_path / "llama", torch.float32)
    with pytest.raises(ModelError, match="has no modules c_attn"):
        Policy(str(folder), "float32", LoraSettings(target_modules=("c_attn",)), 32, 0)


def test_what_is_packed():
    group = pack([4, 5], [[6, 7, 8], [9], [6, 9]], PackedSize(6, 7))
    tokens, positions, mask, places, targets = (each.asnumpy() for each in group)
    assert tokens.tolist() == [4, 5, 6, 7, 6, 0]
    assert positions.tolist() == [0, 1, 2, 3, 2, 0]
    assert places.tolist() == [1, 2, 3, 1, 1, 4, 0]
    assert targets.tolist() == [6, 7, 8, 9, 6, 9, 0]
    seen = [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]
    assert [np.flatnonzero(row == 0).tolist() for row in mask[:5]] == seen
