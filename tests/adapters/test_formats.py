"""Every format and option, read as PEFT reads it: the same modules, and the same W + scaling * B A for each."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_options import EXTENDED, MERGED, SERVED, make_option
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_adapters import CONFIGS, make_adapter
from tiny_models import load_oracle, make_model

from mindgen.adapters.formats.peft import read_adapter
from mindgen.adapters.loader import load_adapter, unservable
from mindgen.adapters.registry import AdapterRegistry
from mindgen.errors import AdapterError, CheckpointError
from mindgen.kernels import dtypes
from mindgen.settings import load_settings
from mindgen.weights.folder import map_weights
from mindgen.weights.formats.mindspore_ckpt import map_mindspore_file, write_mindspore_file
from mindgen.weights.formats.safetensors import map_safetensors

# Written down once more, apart from mindgen's own table.
MINDFORMERS = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "embed_tokens": "tok_embeddings",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model("qwen2-tied", tmp_path_factory.mktemp("model"), torch.float32)


@pytest.fixture(scope="module")
def adapters(model, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    made = {name: make_adapter(name, model, folder) for name in CONFIGS}
    return made | {name: make_option(name, model, folder) for name in (*SERVED, *EXTENDED, *MERGED)}


@pytest.fixture(scope="module")
def modules(model) -> dict[str, tuple[int, int]]:
    shapes = {name.removesuffix(".weight"): tensor.shape for name, tensor in map_weights(model).items()}
    return {name: (shape[1], shape[0]) for name, shape in shapes.items() if name.endswith("_proj")}


def deltas(pairs) -> dict[str, np.ndarray]:
    return {module: pair.scaling * pair.b.astype(np.float64) @ pair.a for module, pair in pairs.items()}


def peft_deltas(model: Path, adapter: Path) -> dict[str, np.ndarray]:
    adapted = PeftModel.from_pretrained(load_oracle(model, torch.float32), adapter)
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").numpy()
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight")
    }


@pytest.mark.parametrize("name", [*CONFIGS, *SERVED])
def test_served_options_equal_peft(name, model, adapters, modules):
    ours, theirs = deltas(load_adapter(name, adapters[name], modules).pairs), peft_deltas(model, adapters[name])
    assert ours.keys() == theirs.keys()
    for module, delta in theirs.items():
        np.testing.assert_allclose(ours[module], delta, atol=1e-6)


@pytest.mark.parametrize("name", MERGED)
def test_what_a_batch_cannot_serve_is_refused_by_name(name, adapters, modules):
    with pytest.raises(AdapterError, match=r"replaces whole modules \(modules_to_save: ") as raised:
        load_adapter("A7", adapters[name], modules)
    assert str(raised.value).startswith("adapter A7 (") and "`mindgen adapters merge`" in str(raised.value)
    assert unservable(read_adapter(adapters[name]))


def copy_config(source: Path, target: Path, **changes) -> Path:
    target.mkdir(exist_ok=True)
    config = json.loads((source / "adapter_config.json").read_text()) | changes
    (target / "adapter_config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize("name", ["everything", "patterns", "dora", "embedding-and-head", "modules-to-save"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_torch_bin_equals_safetensors(name, dtype, adapters, tmp_path):
    tensors = {key: value.to(dtype) for key, value in load_file(adapters[name] / "adapter_model.safetensors").items()}
    first, second = (copy_config(adapters[name], tmp_path / kind) for kind in ("safetensors", "bin"))
    save_file(tensors, first / "adapter_model.safetensors")
    torch.save(tensors, second / "adapter_model.bin")
    assert read_adapter(first).digest == read_adapter(second).digest


def test_torch_bin_of_views_and_parameters(adapters, modules, tmp_path):
    """Transposed, sliced and shared storages, parameters, and the newer protocol of pickle."""
    source = load_file(adapters["everything"] / "adapter_model.safetensors")
    shared = torch.cat([value.flatten() for value in source.values()])
    tensors, start = {}, 0
    for number, (name, value) in enumerate(source.items()):
        flat = shared[start : start + value.numel()].view(value.shape)
        start += value.numel()
        tensors[name] = [flat, value.T.contiguous().T, torch.nn.Parameter(value)][number % 3]
    folder = copy_config(adapters["everything"], tmp_path / "views")
    for protocol in (2, 4):
        torch.save(tensors, folder / "adapter_model.bin", pickle_protocol=protocol)
        assert read_adapter(folder).digest == read_adapter(adapters["everything"]).digest


def test_torch_is_not_needed(adapters, tmp_path):
    folder = copy_config(adapters["everything"], tmp_path / "bin")
    torch.save(load_file(adapters["everything"] / "adapter_model.safetensors"), folder / "adapter_model.bin")
    code = (
        "import sys; from pathlib import Path; from mindgen.adapters.formats.peft import read_adapter\n"
        f"read_adapter(Path({str(folder)!r})); assert not {{'torch', 'mindspore'}} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("halves", [("lora_a", "lora_b"), ("mindpet_delta_lora_a", "mindpet_delta_lora_b")])
@pytest.mark.parametrize("targets", ["list", "patterns", "expression"])
def test_mindformers_adapters(halves, targets, adapters, modules, tmp_path):
    """Written by MindSpore itself."""
    import mindspore

    source = load_file(adapters["everything"] / "adapter_model.safetensors")
    parameters = []
    for name, value in source.items():
        for ours, theirs in MINDFORMERS.items():
            name = name.replace(ours, theirs)
        name = name.replace("base_model.model.", "").replace("lora_A.weight", halves[0])
        name = name.replace("lora_B.weight", halves[1])
        parameters.append({"name": name, "data": mindspore.Tensor(value.numpy())})
    parameters.append({"name": "global_step", "data": mindspore.Tensor(7)})
    folder = tmp_path / "A1"
    folder.mkdir()
    mindspore.save_checkpoint(parameters, str(folder / "adapter_model.ckpt"), crc_check=targets == "list")
    names = ["wq", "wk", "wv", "wo", "w1", "w2", "w3"]
    patterns = [f".*{name}" for name in names]
    target_modules = {"list": names, "patterns": patterns, "expression": "|".join(patterns)}
    config = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": target_modules[targets]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    adapter = load_adapter("A1", folder, modules)
    expected = load_adapter("everything", adapters["everything"], modules)
    assert adapter.digest == expected.digest
    assert deltas(adapter.pairs).keys() == deltas(expected.pairs).keys()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_mindspore_reads_what_we_write(dtype, adapters, tmp_path):
    import mindspore

    tensors = map_safetensors(adapters["everything"] / "adapter_model.safetensors")
    tensors = {name: type(tensor)(dtype, tensor.as_dtype(dtype)) for name, tensor in tensors.items()}
    write_mindspore_file(tmp_path / "a.ckpt", tensors)
    theirs = mindspore.load_checkpoint(str(tmp_path / "a.ckpt"))
    ours = map_mindspore_file(tmp_path / "a.ckpt")
    assert theirs.keys() == ours.keys() == tensors.keys()
    for name, parameter in theirs.items():
        expected = dtypes.to_float32(tensors[name].data, dtype)
        np.testing.assert_array_equal(parameter.astype(mindspore.float32).asnumpy(), expected)
        np.testing.assert_array_equal(dtypes.to_float32(ours[name].data, dtype), expected)


def test_tensors_in_pieces_and_checksums(tmp_path):
    """As MindSpore writes a tensor of more than 512 MB: values of one name, one after the other."""
    from mindspore.train.checkpoint_pb2 import Checkpoint

    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    checkpoint = Checkpoint()
    for piece in np.array_split(data, 3):
        value = checkpoint.value.add()
        value.tag, value.tensor.tensor_type, value.tensor.tensor_content = "whole", "Float32", piece.tobytes()
        value.tensor.dims.extend([3, 4])
    content = checkpoint.SerializeToString()
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    np.testing.assert_array_equal(map_mindspore_file(path)["whole"].data, data)
    path.write_bytes(content + b"crc_num" + (123).to_bytes(10, "big"))
    with pytest.raises(CheckpointError, match="checksum is wrong"):
        map_mindspore_file(path)


RENAMINGS = {
    "default-infix": lambda name: name.replace(".weight", ".default.weight"),
    "no-prefix": lambda name: name.removeprefix("base_model.model."),
    "no-model": lambda name: name.replace("base_model.model.model.", "base_model.model."),
    "loralib": lambda name: name.removeprefix("base_model.model.").removesuffix(".weight"),
}


@pytest.mark.parametrize("tool", RENAMINGS)
def test_names_of_other_tools(tool, adapters, modules, tmp_path):
    source = load_file(adapters["everything"] / "adapter_model.safetensors")
    folder = copy_config(adapters["everything"], tmp_path / tool)
    save_file({RENAMINGS[tool](name): value for name, value in source.items()}, folder / "adapter_model.safetensors")
    adapter = load_adapter("A1", folder, modules)
    assert adapter.digest == load_adapter("everything", adapters["everything"], modules).digest


@pytest.mark.parametrize("qkv", ["qkv_proj", "W_pack"])
def test_fused_modules_are_split(qkv, modules, tmp_path):
    generator = np.random.default_rng(0)
    tensors = {}
    fused = {f"self_attn.{qkv}": ("q_proj", "k_proj", "v_proj"), "mlp.gate_up_proj": ("gate_proj", "up_proj")}
    expected = {}
    for layer in range(2):
        for name, parts in fused.items():
            prefix = f"model.layers.{layer}.{name.split('.')[0]}"
            sizes = [modules[f"{prefix}.{part}"] for part in parts]
            a = generator.standard_normal((4, sizes[0][0]))
            b = generator.standard_normal((sum(size for _, size in sizes), 4))
            ends = np.cumsum([size for _, size in sizes])
            for part, rows in zip(parts, np.split(2.0 * b @ a, ends[:-1]), strict=True):
                expected[f"{prefix}.{part}"] = rows
            name = f"base_model.model.model.layers.{layer}.{name}"
            tensors |= {f"{name}.lora_A.weight": torch.tensor(a), f"{name}.lora_B.weight": torch.tensor(b)}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": [qkv, "gate_up_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({name: value.float() for name, value in tensors.items()}, tmp_path / "adapter_model.safetensors")
    ours = deltas(load_adapter("A1", tmp_path, modules).pairs)
    assert ours.keys() == expected.keys()
    for module, delta in expected.items():
        np.testing.assert_allclose(ours[module], delta, atol=1e-4)
    wider = {module: (size[0], size[1] + 1) for module, size in modules.items()}
    with pytest.raises(AdapterError, match="outputs, but gate_proj, up_proj of the model have 402"):
        load_adapter("A1", tmp_path, wider)


def test_interleaved_mindformers_modules_are_refused(adapters, tmp_path):
    folder = copy_config(adapters["everything"], tmp_path / "A1", target_modules=["w_qkv"])
    save_file({"model.layers.0.attention.w_qkv.lora_a": torch.ones(8, 4)}, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="qkv_concat"):
        read_adapter(folder)


@pytest.mark.parametrize("pet_type", ["slora", "lora"])
@pytest.mark.parametrize("path", ["lora_adapter.json", ""])
def test_pet_config_of_mindformers(pet_type, path, tmp_path):
    (tmp_path / "lora_adapter.json").write_text('{"adapter1": "one"}')
    yaml = f"model:\n  pet_config:\n    pet_type: {pet_type}\n    adapter_path: {tmp_path / path}\n"
    (tmp_path / "run.yaml").write_text(yaml)
    adapter_path = load_settings(tmp_path / "run.yaml", {}).model.pet_config.adapter_path
    assert AdapterRegistry.read(Path(adapter_path)).get("adapter1").folder == tmp_path / "one"
