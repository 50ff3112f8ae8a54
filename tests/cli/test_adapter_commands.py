"""`mindgen adapters`, as it is called: what it prints, its exit codes, and that it needs no MindSpore."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapter_options import make_option
from tiny_adapters import make_adapter
from tiny_models import make_model

from mindgen.adapters.formats.peft import read_adapter
from mindgen.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models `model` and `other`, and adapters beside a list of them."""
    folder = tmp_path_factory.mktemp("commands")
    make_model("qwen2-tied", folder / "model", torch.float32)
    make_model("qwen3-untied", folder / "other", torch.float32)
    make_adapter("everything", folder / "model", folder)
    make_option("dora", folder / "model", folder)
    make_option("modules-to-save", folder / "model", folder)
    (folder / "lora_adapter.json").write_text(json.dumps({"law": "everything", "poetry": "modules-to-save"}))
    return folder


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main(["adapters", *map(str, arguments)])
    output = capsys.readouterr()
    assert len(output.err.splitlines()) == (1 if code else 0)
    return code, output.out, output.err


def test_list(folder, capsys, tmp_path):
    digest = read_adapter(folder / "everything").digest[:12]
    configuration = tmp_path / "run.yaml"
    configuration.write_text(f"model:\n  pet_config:\n    pet_type: slora\n    adapter_path: {folder}\n")
    for path in (folder, folder / "lora_adapter.json", configuration):
        code, output, _ = run(capsys, "list", path)
        assert code == 0 and digest in output
        assert "law" in output and "no: replaces whole modules" in output
    code, output, _ = run(capsys, "list")
    assert code == 0 and all(name in output for name in ("A1", "A2", "A3"))


def test_list_of_a_folder_with_a_broken_adapter(folder, capsys, tmp_path):
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_bytes((folder / "everything/adapter_config.json").read_bytes())
    (tmp_path / "good/adapter_model.safetensors").symlink_to(folder / "everything/adapter_model.safetensors")
    code, output, error = run(capsys, "list", tmp_path)
    assert code == 1 and "good" in output and "No such file" in output
    assert error == "mindgen: error: 1 of 2 adapters cannot be read: bad\n"


def test_inspect(folder, capsys):
    code, output, _ = run(capsys, "inspect", folder / "dora")
    assert code == 0 and re.search(r"DoRA *│ yes", output) and "model.layers.*.mlp.down_proj" in output
    assert read_adapter(folder / "dora").digest in output
    assert run(capsys, "inspect", "law", "--adapter_path", folder)[0] == 0
    assert "gate_proj" in run(capsys, "inspect", "A1")[1]  # the demo's, as they are listed


def test_verify(folder, capsys):
    code, output, _ = run(capsys, "verify", folder / "everything", "--model", folder / "model")
    assert code == 0 and "14 modules fit the model" in output and "served in a batch: yes" in output
    code, output, error = run(capsys, "verify", folder / "everything", "--model", folder / "other")
    assert code == 1 and "q_proj maps 96 to 192" in output and "problem(s)" in error


def test_convert_and_diff(folder, capsys, tmp_path):
    arguments = ["convert", folder / "everything", "--to", "mindformers", "--output", tmp_path / "out"]
    code, output, _ = run(capsys, *arguments)
    assert code == 0 and "14 modules, the same digest" in output
    assert "is there already" in run(capsys, *arguments)[2]
    assert "the same: digest" in run(capsys, "diff", tmp_path / "out", folder / "everything")[1]
    code, output, _ = run(capsys, "diff", folder / "dora", folder / "everything")
    assert code == 0 and "0 modules compute the same, 14 differ" in output
    code, _, error = run(capsys, "convert", folder / "dora", "--to", "mindformers", "--output", tmp_path / "no")
    assert code == 1 and "uses DoRA" in error


def test_merge(folder, capsys, tmp_path):
    code, output, _ = run(
        capsys, "merge", folder / "dora", "--model", folder / "model", "--output", tmp_path / "merged"
    )
    assert code == 0 and "26 tensors, 14 of them changed" in output
    assert (tmp_path / "merged/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["inspect", "nowhere"], 1, "no such folder: nowhere (a name goes with --adapter_path"),
        (["inspect", "lw", "--adapter_path", "{folder}"], 2, r"unknown adapter_id 'lw' (did you mean law?)"),
        (["list", "{folder}/model"], 1, "neither lora_adapter.json nor folders with adapter_config.json"),
        (["list", "{folder}/nothing.json"], 1, "cannot read"),
        (["verify", "{folder}/dora", "--model", "{folder}/nothing"], 1, "no such model folder"),
        (["merge", "{folder}/dora", "--model", "{folder}/dora", "--output", "{folder}/x"], 1, "is an adapter's folder"),
        (["merge", "{folder}/dora", "--model", "{folder}/model", "--output", "/proc/x/y"], 1, "No such file"),
    ],
)
def test_mistakes(folder, capsys, arguments, code, expected):
    result, _, error = run(capsys, *(argument.format(folder=folder) for argument in arguments))
    assert result == code and expected in error


@pytest.mark.parametrize(
    "arguments", [[], ["merge"], ["convert", "a", "--to", "onnx", "--output", "b"], ["frobnicate"]]
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["adapters", *arguments])
    assert raised.value.code == 2


def test_mindspore_does_not_start(folder, tmp_path):
    commands = [
        ["list", folder], ["inspect", folder / "dora"], ["diff", folder / "dora", folder / "everything"],
        ["verify", folder / "dora", "--model", folder / "model"],
        ["convert", folder / "everything", "--to", "mindformers", "--output", tmp_path / "out"],
        ["merge", folder / "dora", "--model", folder / "model", "--output", tmp_path / "merged"],
    ]  # fmt: skip
    code = "import sys; from mindgen.cli.main import main\n"
    for command in commands:
        code += f"assert main({['adapters', *map(str, command)]!r}) == 0\n"
    code += "assert not {'mindspore', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
