"""Folders that are made of a GGUF file's metadata, whose values may be of any type."""

import numpy as np
import pytest
import torch
from gguf_models import write_gguf
from tiny_models import make_model

from mindgen.errors import CheckpointError, MindgenError
from mindgen.store.gguf_folder import _files_of
from mindgen.text.tokenizer import load_tokenizer
from mindgen.weights.architecture import read_model_config
from mindgen.weights.formats.gguf import gguf_files, map_gguf, read_model
from mindgen.weights.formats.gguf_container import GgufFile

ODD_VALUES = [
    0, -1, 3, 2**63, float("nan"), float("inf"), -1.5, "", "weird", True, [], ["a", "a", "b"],
    np.array([], np.int32), np.array([1, 1, 1], np.int32), np.array([-1] * 320, np.int32),
    np.array([float("nan")] * 320, np.float32), np.array([1e300] * 320), np.array([True, False]),
]  # fmt: skip
# What a file may have besides.
MORE = {
    "general.name": "x", "llama.attention.head_count_kv": 4, "llama.rope.dimension_count": 24, "llama.logit_scale": 1.0,
    "llama.rope.scaling.type": "none", "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.eot_token_id": 2,
    "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.unknown_token_id": 0, "tokenizer.chat_template": "x",
    "tokenizer.chat_template.tool_use": "x", "tokenizer.ggml.precompiled_charsmap": np.zeros(0, np.uint8),
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    model = make_model("llama-multi-head", folder / "model", torch.float32, intermediate_size=192)
    return write_gguf(model, folder / "model.gguf")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_values_of_any_type_are_read_or_refused_in_one_line(kind, file, tmp_path):
    model = read_model(file)
    metadata = MORE | model.metadata | {"tokenizer.ggml.model": kind}
    if kind == "llama":
        count = len(metadata["tokenizer.ggml.tokens"])
        metadata["tokenizer.ggml.scores"] = np.zeros(count, np.float32)
        metadata["tokenizer.ggml.token_type"] = np.array([2, 3, 3] + [1] * (count - 3), np.int32)
    refused = read = 0
    for key in metadata:
        for value in ODD_VALUES:
            try:
                files = _files_of(file, GgufFile(metadata | {key: value}, model.tensors))
                for name, content in files.items():
                    (tmp_path / name).write_bytes(content)
                read_model_config(tmp_path)
                load_tokenizer(tmp_path).encode("Hello")
                read += 1
            except MindgenError as error:
                assert str(error) and "\n" not in str(error) and len(str(error)) < 1000
                refused += 1
    assert refused > 5 * read > 0


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("general.architecture", ["llama"], r"architecture \['llama'\] is not served"),
        ("general.name", 3, "general.name must be a text, not 3"),
        ("llama.attention.head_count", "6", "llama.attention.head_count must be an integer, not '6'"),
        ("llama.attention.layer_norm_rms_epsilon", "a", "layer_norm_rms_epsilon must be a number, not 'a'"),
        ("llama.embedding_length", True, "llama.embedding_length must be an integer, not True"),
        ("tokenizer.ggml.eos_token_id", np.array([2, 3]), r"eos_token_id must be an integer, not array\(\[2, 3\]\)"),
        ("tokenizer.ggml.token_type", np.array([7] * 320), "token_type has 7, which is no type of a token"),
        ("tokenizer.chat_template", np.array([2]), "chat_template must be a text"),
    ],
)
def test_the_key_is_named(key, value, message, file):
    model = read_model(file)
    with pytest.raises(MindgenError, match=f"model.gguf: .*{message}"):
        _files_of(file, GgufFile(model.metadata | {key: value}, model.tensors))


@pytest.mark.parametrize("name", ["m-00001-of-00000.gguf", "m-00003-of-00002.gguf", "m-00000-of-00002.gguf"])
def test_a_file_that_is_not_among_those_of_its_model(name, tmp_path):
    with pytest.raises(CheckpointError, match=r"a model has no file \d of \d: give the files"):
        gguf_files(tmp_path / name)


def test_the_tensors_need_heads(file, tmp_path):
    """map_gguf, too, looks at the types: it is called with files of which no folder was made."""
    content = file.read_bytes().replace(b"llama.attention.head_count\x04", b"llama.attention.head_count\x06")
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(MindgenError, match="head_count must be an integer, not "):
        map_gguf(tmp_path / "x.gguf")
