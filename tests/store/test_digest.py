"""What tells a model from others."""

from pathlib import Path

import pytest
import torch
from tiny_models import make_model
from tiny_tokenizers import make_tokenizer

from mindgen.store.digest import content_digest
from mindgen.weights.weight_files import find_weights


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32, vocab_size=340)
    make_tokenizer("sentencepiece_bpe", folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    return folder


def digest(folder: Path) -> str:
    return content_digest(folder, find_weights(folder, None, 1))


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.model", "chat_template.jinja",
     "additional_chat_templates/tool_use.jinja"],
)  # fmt: skip
def test_every_text_counts(model: Path, name: str) -> None:
    before, path = digest(model), model / name
    assert digest(model) == before
    path.write_bytes(path.read_bytes() + b"\n")
    assert digest(model) != before


def test_every_byte_of_the_weights_counts(model: Path) -> None:
    before, path = digest(model), model / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert digest(model) != before
