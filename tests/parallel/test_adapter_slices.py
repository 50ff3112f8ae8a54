"""MindFormers' two modes of adapters on several ranks: slices made at start, and slices that lie ready."""

import shutil

from mindgen.cli.main import main
from mindgen.store import embedded

PROMPT = "An increasing sequence: one,"


def generate(capsys, *arguments: object) -> tuple[int, str, str]:
    command = ["generate", "--tp", "2", "--prompt", PROMPT, "--adapter_id", "A1", *map(str, arguments)]
    code = main(command)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_slices_are_made_and_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, expected, _ = generate(capsys)
    assert code == 0 and "二" in expected
    assert generate(capsys, "--auto_trans_ckpt", "True")[:2] == (0, expected)
    made = tmp_path / "output/transform_ckpt/slora"
    assert {path.name for path in made.glob("rank_*/*")} == {f"{name}.safetensors" for name in ("A1", "A2", "A3")}

    adapters = shutil.copytree(embedded.adapter_folder(), tmp_path / "adapters")
    shutil.move(made, adapters / "A1/slora")
    assert generate(capsys, "--adapter_path", adapters)[:2] == (0, expected)
    (adapters / "A1/slora/rank_1/A1.safetensors").unlink()
    code, _, errors = generate(capsys, "--adapter_path", adapters)
    assert code == 1 and "adapter A1 has no slices for rank 1" in errors and "Traceback" not in errors
    shutil.copy(adapters / "A1/slora/rank_1/A2.safetensors", adapters / "A1/slora/rank_1/A1.safetensors")
    code, _, errors = generate(capsys, "--adapter_path", adapters)
    assert code == 1 and "slice the adapter again (auto_trans_ckpt: True)" in errors
