"""What a batch job takes from the model's generation_config.json: the command prints the sampling that holds."""

import json
import shutil
from pathlib import Path

import pytest

from mindgen.cli.main import main
from mindgen.store import embedded

SAID = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 4096}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "temperature 0.6, top_k 0, top_p 0.9, max_tokens 64, n_samples 1"),
        (["generation.top_p=0.5"], "temperature 0.6, top_k 0, top_p 0.5, max_tokens 64, n_samples 1"),
        (["generation.temperature=0"], "greedy, temperature 0"),
        (["rollout.temperature=1.0"], "temperature 1.0, top_k 50, top_p 0.7, max_tokens 512, n_samples 5"),
    ],
)
def test_it_says_what_nobody_else_says(words, expected, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(embedded.demo_folder(), folder)
    (folder / "generation_config.json").write_text(json.dumps(SAID))
    paths = ["--input", str(tmp_path / "none.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--model", str(folder)]
    assert main(["batch", *words, *paths]) == 2  # for there is no such input
    assert f"mindgen: sampling: {expected}" in capsys.readouterr().err
