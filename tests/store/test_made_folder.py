"""Folders that are made of files: each file has its own, however it is named."""

import os

import pytest
from mindformers_files import predict_yaml
from scratch_gpt import SIZES, random_weights, save
from tiny_tokenizers import make_tokenizer

from mindgen.settings import load_settings
from mindgen.store.find_model import find_model
from mindgen.store.made_folder import made_folder

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def runs(tmp_path):
    """Two folders with an x.pt each, of one size and one time, that differ in their weights."""
    for seed, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        path = save(make_tokenizer("byte_level_bpe", tmp_path / name) / "x.pt", random_weights(seed), SIZES)
        os.utime(path, (1e9, 1e9))
    return [tmp_path / "first", tmp_path / "second"]


def test_one_name_in_two_folders_is_two_models(runs, monkeypatch):
    assert len({(run / "x.pt").stat().st_size for run in runs}) == 1
    for run in runs:
        monkeypatch.chdir(run)
        assert (find_model("x.pt") / "model.pt").resolve() == run / "x.pt"
        assert (find_model("x.pt") / "tokenizer.json").resolve() == run / "tokenizer.json"
    assert find_model("x.pt") == find_model(runs[1] / "x.pt") == find_model("../second/x.pt")


def test_a_link_that_leads_elsewhere_later_changes_no_folder(runs):
    link = runs[0].parent / "latest"
    for run in runs:
        link.unlink(missing_ok=True)
        link.symlink_to(run)
        assert (find_model(link / "x.pt") / "model.pt").resolve() == run / "x.pt"
    assert (find_model(runs[0] / "x.pt") / "model.pt").resolve() == runs[0] / "x.pt"


def test_a_yaml_s_tokenizer_is_that_of_its_own_folder(tmp_path, monkeypatch):
    """The same YAML, with a tokenizer by a relative path."""
    for name in ("first", "second"):
        (tmp_path / name / "model").mkdir(parents=True)
        path = predict_yaml(make_tokenizer("sentencepiece_bpe", tmp_path / name / "model"))
        text = path.read_text().replace(f"{tmp_path / name}/", "")
        shared = tmp_path / "shared.yaml"
        if not shared.exists():
            shared.write_text(text)
        monkeypatch.chdir(tmp_path / name)
        model = load_settings(shared, {}).model.path
        assert (tmp_path / name / "model") in (tmp_path.joinpath(model) / "tokenizer.model").resolve().parents


def test_it_is_made_once(tmp_path):
    made = []
    (tmp_path / "x").write_text("x")

    def make():
        made.append(1)
        return {"config.json": b"{}"}

    folders = {made_folder("kind", tmp_path / "x", "", {"model": tmp_path / "x"}, make) for _ in range(2)}
    assert len(folders) == len(made) == 1
    (tmp_path / "x").write_text("longer")
    made_folder("kind", tmp_path / "x", "", {"model": tmp_path / "x"}, make)
    assert len(made) == 2
