"""What an adapter that cannot be served gets: one line that says what is wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mindgen.adapters.loader import load_adapter
from mindgen.adapters.registry import AdapterRegistry
from mindgen.errors import AdapterError, UnknownAdapterError

HIDDEN, INNER = 12, 20
MODULES = {
    f"model.layers.{layer}.{name}": sizes
    for layer in range(2)
    for name, sizes in {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.v_proj": (HIDDEN, HIDDEN // 2),
        "mlp.down_proj": (INNER, HIDDEN),
    }.items()
}
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "bias": "none"}


def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    result = {}
    for module, (in_features, out_features) in MODULES.items():
        if module.endswith(("q_proj", "down_proj")):
            name = f"base_model.model.{module}"
            result[f"{name}.lora_A.weight"] = generator.standard_normal((4, in_features), np.float32)
            result[f"{name}.lora_B.weight"] = generator.standard_normal((out_features, 4), np.float32)
    return result


def write(folder: Path, config: dict, weights: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(AdapterError) as raised:
        load_adapter("A1", folder, MODULES)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_float64_is_rounded_to_float32(tmp_path):
    wide = {name: tensor.astype(np.float64) + 1e-12 for name, tensor in tensors().items()}
    adapter = load_adapter("A1", write(tmp_path / "A1", CONFIG, wide), MODULES)
    expected = load_adapter("A1", write(tmp_path / "A2", CONFIG, tensors()), MODULES)
    for module, pair in adapter.pairs.items():
        assert pair.dtype == "float32"
        np.testing.assert_array_equal(pair.a, expected.pairs[module].a)
        np.testing.assert_array_equal(pair.b, expected.pairs[module].b)


def test_a_good_adapter_loads(tmp_path):
    adapter = load_adapter("A1", write(tmp_path / "A1", CONFIG, tensors()), MODULES)
    assert adapter.pairs.keys() == {module for module in MODULES if not module.endswith("v_proj")}
    pair = adapter.pairs["model.layers.1.mlp.down_proj"]
    np.testing.assert_array_equal(pair.a, tensors()["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"])
    assert pair.scaling == 2.0


def test_digest_is_of_the_content(tmp_path):
    first = load_adapter("A1", write(tmp_path / "first", CONFIG, tensors()), MODULES)
    same = load_adapter("other name", write(tmp_path / "same", CONFIG, dict(reversed(tensors().items()))), MODULES)
    other_alpha = load_adapter("A1", write(tmp_path / "alpha", {**CONFIG, "lora_alpha": 9}, tensors()), MODULES)
    changed = tensors()
    next(iter(changed.values()))[0, 0] += 1
    other_weights = load_adapter("A1", write(tmp_path / "weights", CONFIG, changed), MODULES)
    assert first.digest == same.digest
    assert len({first.digest, other_alpha.digest, other_weights.digest}) == 3


def test_missing_files(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")
    folder = write(tmp_path / "A1", CONFIG, tensors())
    (folder / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors: No such file" in refusal(folder)
    (folder / "adapter_config.json").unlink()
    assert "adapter_config.json: No such file" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 5, 8, 100, -1])
def test_truncated_weights(tmp_path, kept):
    folder = write(tmp_path / "A1", CONFIG, tensors())
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "truncated" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"r": 8}, r"lora_A \(4, 20\).*rank 8"),
        ({"r": 0}, "r must be a positive integer, not 0"),
        ({"r": "4"}, "r must be a positive integer, not '4'"),
        ({"lora_alpha": None}, "lora_alpha must be a number, not None"),
        (
            {"target_modules": ["q_proj", "down_proj", "w_proj"]},
            r"\['w_proj'\] match no layer.*q_proj, v_proj, down_proj",
        ),
        ({"target_modules": "nothing"}, "'nothing' match no layer"),
        ({"target_modules": "("}, "no regular expression"),
        ({"target_modules": []}, "target_modules must be a list"),
        ({"target_modules": ["q_proj", "down_proj", "v_proj"]}, "without tensors: .*layers.0.self_attn.v_proj"),
        ({"target_modules": ["q_proj"]}, "tensors for no targeted layer.*down_proj"),
        ({"use_dora": True}, "disagree about its magnitude"),
        ({"bias": "some"}, "bias must be none, all or lora_only, not 'some'"),
        ({"init_lora_weights": "pissa_niter_4"}, "also changed the base weights"),
        ({"trainable_token_indices": [3]}, r"trainable_token_indices=\[3\] is not served"),
        ({"target_modules": "([a-z]+)+!"}, "could take too long to match"),
        ({"target_modules": "((.)|(.))*!"}, "could take too long to match"),
        ({"exclude_modules": ".*" * 20 + "!"}, "could take too long to match"),
        ({"exclude_modules": 3}, "exclude_modules must be a list"),
        ({"exclude_modules": ["q_proj"]}, "tensors for no targeted layer.*q_proj"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"rank_pattern": [1]}, "rank_pattern must be an object"),
        ({"rank_pattern": {"(?i)q_proj": 4}}, "no regular expression"),
        ({"use_rslora": "no"}, "use_rslora must be true or false, not 'no'"),
        ({"layers_to_transform": "all"}, "layers_to_transform must be a list"),
    ],
)
def test_bad_configurations(tmp_path, change, expected):
    message = refusal(write(tmp_path / "A1", {**CONFIG, **change}, tensors()))
    assert re.search(expected, message), message


def test_tensors_of_another_model(tmp_path):
    weights = tensors()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    weights[name] = np.zeros((4, HIDDEN + 1), np.float32)
    assert "maps 12 to 12, but its lora_A is (4, 13)" in refusal(write(tmp_path / "A1", CONFIG, weights))
    del weights[name]
    assert "lora_B but not its other half" in refusal(write(tmp_path / "A1", CONFIG, weights))
    weights = {key.replace("layers.1.", "layers.7."): value for key, value in tensors().items()}
    assert "layers.7.mlp.down_proj" in refusal(write(tmp_path / "A1", CONFIG, weights))
    assert "is not of the form" in refusal(
        write(tmp_path / "A1", CONFIG, {**tensors(), "stray": np.zeros(3, np.float32)})
    )


def test_bad_json(tmp_path):
    folder = write(tmp_path / "A1", CONFIG, tensors())
    (folder / "adapter_config.json").write_text("{")
    assert "not valid JSON" in refusal(folder)
    (folder / "adapter_config.json").write_text("[1]")
    assert "must hold a JSON object" in refusal(folder)


def test_integer_tensors_are_refused(tmp_path):
    weights = {name: value.astype(np.int32) for name, value in tensors().items()}
    assert "int32" in refusal(write(tmp_path / "A1", CONFIG, weights))


def test_non_finite_weights_are_refused(tmp_path):
    weights = tensors()
    next(iter(weights.values()))[0, 0] = np.nan
    assert "not finite" in refusal(write(tmp_path / "A1", CONFIG, weights))


def test_registry(tmp_path):
    (tmp_path / "lora_adapter.json").write_text('{"A1": "one", "A2": "/elsewhere/two"}')
    registry = AdapterRegistry.read(tmp_path)
    assert registry.get("A1").folder == tmp_path / "one"
    assert registry.get("A2").folder == Path("/elsewhere/two")
    expected = r"unknown adapter_id 'A11' \(did you mean A1\?\); known adapters: A1, A2"
    with pytest.raises(UnknownAdapterError, match=expected):
        registry.get("A11")


@pytest.mark.parametrize("text", ["", "[]", '{"A1": 3}', '{"A1": ""}', '{"A1": "a", "A1": "b"}', '{"base": "a"}'])
def test_malformed_registry(tmp_path, text):
    (tmp_path / "lora_adapter.json").write_text(text)
    with pytest.raises(AdapterError, match="lora_adapter.json"):
        AdapterRegistry.read(tmp_path / "lora_adapter.json")
