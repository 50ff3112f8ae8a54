"""Tokenizers in GGUF's metadata: ids and texts are those of the tokenizer that the metadata was made of."""

import json
import unicodedata
from functools import partial

import numpy as np
import pytest
import regex
import sentencepiece
from tiny_tokenizers import TORTURE, make_tokenizer
from tokenizers import Tokenizer, pre_tokenizers

from mindgen.errors import ModelError
from mindgen.text.gguf_tokenizer import tokenizer_files
from mindgen.text.tokenizer import load_tokenizer

TEXTS = [
    "Hello world, hello  again.", "  two leading spaces", "我爱北京", "naïve café — 👩\u200d👧", "tabs\tand\nlines\n\n",
    "1234567 3.14 2024-11-29", "don't I'LL we've", "<s>special</s> tokens<unk>", "", " ", "{'a': [1, 2]}\r\n",
    "مرحبا עולם", "cafe\u0301 decomposed", *TORTURE, *(f"{text}</s> {text}<unk>{text}" for text in TORTURE),
]  # fmt: skip


# The words of Qwen2's and of Llama 3's tokenizer.json.
LETTERS, REST = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
WORDS = {"qwen2": LETTERS + r"|\p{N}|" + REST, "llama-bpe": LETTERS + r"|\p{N}{1,3}|" + REST}


def word_by_word(tokenizer, text, pre):
    """The ids of a text's words, which another library finds."""
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.model.ignore_merges = pre == "llama-bpe"
    words = regex.findall(WORDS[pre], text)
    assert "".join(words) == text
    return [id_ for word in words for id_ in tokenizer.encode(word, add_special_tokens=False).ids]


def load(metadata, folder):
    for name, content in tokenizer_files(metadata).items():
        (folder / name).write_bytes(content)
    return load_tokenizer(folder)


def byte_level_metadata(folder, pre):
    content = json.loads((folder / "tokenizer.json").read_text())
    ids = dict(content["model"]["vocab"]) | {each["content"]: each["id"] for each in content["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    special = {each["content"] for each in content["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3 if token in special else 1 for token in tokens]),
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]
        ],
        "tokenizer.ggml.bos_token_id": ids["<s>"],
        "tokenizer.ggml.eos_token_id": ids["</s>"],
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
    }


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_byte_level(pre, tmp_path):
    original = make_tokenizer("byte_level_bpe", tmp_path)
    theirs = Tokenizer.from_file(str(original / "tokenizer.json"))
    theirs.post_processor = None
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        theirs.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made = tmp_path / "made"
    made.mkdir()
    ours = load(byte_level_metadata(original, pre), made)
    normal = partial(unicodedata.normalize, "NFC") if pre == "qwen2" else str
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False)
        if pre in ("gpt-2", "smollm"):
            assert ids == theirs.encode(text, add_special_tokens=False).ids
        elif "<" not in text:
            assert ids == word_by_word(theirs, normal(text), pre)
        assert ours.decode(ids, skip_special_tokens=False) == normal(text)
    assert ours.encode("x")[:1] == ([ours.bos_id] if pre == "llama-bpe" else ours.encode("x", False)[:1])
    names = {each["name"] for each in json.loads((made / "tokenizer_config.json").read_text())["chat_template"]}
    assert names == {"default", "tool_use"}


def test_sentencepiece(tmp_path):
    original = make_tokenizer("sentencepiece_bpe", tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(original / "tokenizer.model"))
    count = processor.GetPieceSize()
    kinds = [
        2 if processor.IsUnknown(id_) else 3 if processor.IsControl(id_) else 6 if processor.IsByte(id_) else 1
        for id_ in range(count)
    ]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [processor.IdToPiece(id_) for id_ in range(count)],
        "tokenizer.ggml.scores": np.array([processor.GetScore(id_) for id_ in range(count)]),
        "tokenizer.ggml.token_type": np.array(kinds),
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
    }
    made = tmp_path / "made"
    made.mkdir()
    ours, theirs = load(metadata, made), load_tokenizer(original)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
        if "<" not in text:
            assert ours.encode(text, add_special_tokens=False) == processor.EncodeAsIds(text)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokenizer.ggml.tokens": []}, "has no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": "abc"}, "tokenizer.ggml.tokens is no list of texts"),
        ({"tokenizer.ggml.token_type": np.array([1])}, "tokens and 1 types of them"),
        ({"tokenizer.ggml.merges": ["a"]}, "merges has 'a', which is no pair"),
        ({"tokenizer.ggml.merges": ["nothing here"]}, "merges do not fit the tokens"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, "bos_token_id 1000000 is none of the"),
        ({"tokenizer.ggml.add_bos_token": 1}, "add_bos_token must be true or false, not 1"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None},
            "does not say which token that is",
        ),
    ],
)
def test_what_is_malformed(change, message, tmp_path):
    metadata = byte_level_metadata(make_tokenizer("byte_level_bpe", tmp_path), "gpt-2") | change
    with pytest.raises(ModelError, match=message):
        tokenizer_files({name: value for name, value in metadata.items() if value is not None})
