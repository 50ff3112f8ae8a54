"""Tokenizers as metadata of GGUF: what is read back gives the same ids and texts."""

import json
import random

import numpy as np
import pytest
import transformers
from test_gguf_tokenizer import TEXTS
from tiny_tokenizers import VOCAB_SIZE, make_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from mindgen.errors import ModelError
from mindgen.text.chat_template import load_chat_templates
from mindgen.text.fast_tokenizer import QWEN2_WORDS
from mindgen.text.gguf_tokenizer import tokenizer_files
from mindgen.text.gguf_vocabulary import tokenizer_metadata
from mindgen.text.tokenizer import load_tokenizer
from mindgen.weights.formats.gguf import FORMAT
from mindgen.weights.formats.gguf_container import read_gguf

SIZE = VOCAB_SIZE + 14
SPECIAL, OTHER = "<|im_start|>", "<tool>"


def read_back(folder, made, ends=(2,)):
    """The tokenizer out of a file that was written and read."""
    made.mkdir()
    FORMAT.write(made / "model.gguf", {}, [], tokenizer_metadata(folder, SIZE, ends))
    for name, content in tokenizer_files(read_gguf(made / "model.gguf").metadata).items():
        (made / name).write_bytes(content)
    return load_tokenizer(made)


def texts():
    rng = random.Random(0)
    alphabet = [*"abcXYZ 0123456789\t\n\r.,'!{}äß我爱é\u0301\u200d👩", "'ll", "  ", SPECIAL, OTHER, "<s>", "</s>"]
    return TEXTS + ["".join(rng.choices(alphabet, k=rng.randrange(1, 40))) for _ in range(200)]


def assert_same(ours, theirs):
    for text in texts():
        ids = theirs.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids, skip_special_tokens=False)
    for token_id in range(SIZE):
        assert ours.token_bytes(token_id) == theirs.token_bytes(token_id), token_id
    assert (ours.bos_id, ours.eos_id, ours.special_ids) == (theirs.bos_id, theirs.eos_id, theirs.special_ids)
    assert ours.num_leading_spaces_dropped == theirs.num_leading_spaces_dropped


def byte_level(folder, pre):
    make_tokenizer("byte_level_bpe", folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(SPECIAL, special=True), AddedToken(OTHER, special=False)])
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = QWEN2_WORDS if pre == "qwen2" else QWEN2_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
    tokenizer.pre_tokenizer = {
        "gpt-2": gpt2,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2]),
    }.get(pre, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), rest]))
    tokenizer.normalizer = normalizers.NFC() if pre == "qwen2" else None
    tokenizer.model.ignore_merges = pre == "llama-bpe"
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_byte_level(pre, tmp_path):
    folder = byte_level(tmp_path, pre)
    assert tokenizer_metadata(folder, SIZE, [2])["tokenizer.ggml.pre"] == pre
    ours, theirs = read_back(folder, tmp_path / "made"), load_tokenizer(folder)
    assert theirs.token_id(SPECIAL) in theirs.special_ids and theirs.token_id(OTHER) not in theirs.special_ids
    assert_same(ours, theirs)


def test_vocab_and_merges(tmp_path):
    folder = make_tokenizer("vocab_and_merges", tmp_path)
    assert_same(read_back(folder, tmp_path / "made"), load_tokenizer(folder))


@pytest.mark.parametrize("config", [{}, {"add_bos_token": False, "add_eos_token": True}, {"add_prefix_space": False}])
def test_sentencepiece(config, tmp_path):
    folder = make_tokenizer("sentencepiece_bpe", tmp_path)
    count = load_tokenizer(folder).vocab_size
    decoder = {
        str(count): {"content": SPECIAL, "special": True, "normalized": False},
        str(count + 1): {"content": OTHER, "special": False, "normalized": False},
    }
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "added_tokens_decoder": decoder, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert_same(read_back(folder, tmp_path / "made"), load_tokenizer(folder))


def with_both_files(folder):
    """tokenizer.model, and what transformers makes of it, in the form in which Llama 2 is stored."""
    make_tokenizer("sentencepiece_bpe", folder)
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": True}))
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    parts = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    change_json(folder, normalizer={"type": "Sequence", "normalizers": parts}, pre_tokenizer=None)
    return folder


def test_a_tokenizer_model_beside_a_tokenizer_json(tmp_path):
    folder = with_both_files(tmp_path)
    theirs = load_tokenizer(folder)
    assert theirs.kind == "tokenizers BPE"
    assert_same(read_back(folder, tmp_path / "made"), theirs)


def test_a_tokenizer_model_that_is_another(tmp_path):
    folder = with_both_files(tmp_path)
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    change_json(folder, normalizer=None, pre_tokenizer=space)  # puts no second space where a text begins with one
    with pytest.raises(ModelError, match="tokenizer.json and tokenizer.model give different ids of '  我爱"):
        tokenizer_metadata(folder, SIZE, [2])


def test_spaces_behind_special_tokens_are_told(tmp_path, capsys):
    folder = make_tokenizer("sentencepiece_bpe", tmp_path)
    (folder / "tokenizer_config.json").write_text('{"legacy": false}')
    tokenizer_metadata(folder, SIZE, [2])
    assert "puts no space behind special tokens (legacy: false), which GGUF cannot tell" in capsys.readouterr().err


def test_what_is_written_of_tokens(tmp_path):
    folder = byte_level(tmp_path, "gpt-2")
    metadata = tokenizer_metadata(folder, SIZE, [VOCAB_SIZE, 2])
    types = metadata["tokenizer.ggml.token_type"]
    assert metadata["tokenizer.ggml.tokens"][VOCAB_SIZE : VOCAB_SIZE + 3] == [SPECIAL, OTHER, f"[PAD{VOCAB_SIZE + 2}]"]
    assert types[:4].tolist() == [3, 3, 3, 1] and types[VOCAB_SIZE:].tolist() == [3, 4, *[5] * 12]
    ids = {name: metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "eot")}
    assert ids == {"bos": 1, "eos": 2, "eot": VOCAB_SIZE}
    assert metadata["tokenizer.ggml.add_bos_token"] is True and metadata["tokenizer.ggml.add_eos_token"] is False


def test_chat_templates(tmp_path):
    folder = byte_level(tmp_path, "gpt-2")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    sources = {"default": "{{ messages[0]['content'] }}", "tool_use": "{{ tools }}"}
    config["chat_template"] = [{"name": name, "template": source} for name, source in sources.items()]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    read_back(folder, tmp_path / "made")
    assert load_chat_templates(tmp_path / "made").sources == sources


def change_json(folder, **changes):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: change_json(folder, normalizer={"type": "Lowercase"}), "has no name in GGUF: named are"),
        (lambda folder: change_json(folder, pre_tokenizer={"type": "WhitespaceSplit"}), "has no name in GGUF"),
        (
            lambda folder: change_json(
                folder,
                added_tokens=[
                    {
                        "id": 2,
                        "content": "</s>",
                        "single_word": False,
                        "lstrip": True,
                        "rstrip": True,
                        "normalized": False,
                        "special": True,
                    }
                ],
            ),
            "the token '</s>' has lstrip and rstrip, for which GGUF has no place",
        ),
        (
            lambda folder: make_tokenizer("byte_fallback_bpe", folder),
            "expected a BPE of bytes, and it is a BPE of another",
        ),
        (lambda folder: make_tokenizer("byte_fallback_unigram", folder), "it is a Unigram of another kind"),
        (
            lambda folder: ((folder / "tokenizer.json").unlink(), make_tokenizer("sentencepiece_unigram", folder)),
            "tokenizer.model is no BPE of sentencepiece",
        ),
    ],
)
def test_what_gguf_has_no_place_for(change, message, tmp_path):
    change(byte_level(tmp_path, "gpt-2"))
    with pytest.raises(ModelError, match=message):
        tokenizer_metadata(tmp_path, 1000, [2])


def test_a_tokenizer_of_another_model(tmp_path):
    with pytest.raises(ModelError, match=f"the tokenizer has {VOCAB_SIZE + 2} tokens, and the model 10"):
        tokenizer_metadata(byte_level(tmp_path, "gpt-2"), 10, [2])


def test_an_eos_that_ends_no_output_is_told(tmp_path, capsys):
    metadata = tokenizer_metadata(byte_level(tmp_path, "gpt-2"), SIZE, [7])
    assert metadata["tokenizer.ggml.eos_token_id"] == 7
    assert "the tokenizer's EOS is 2, with which the model ends no output" in capsys.readouterr().err
    assert isinstance(metadata["tokenizer.ggml.token_type"], np.ndarray)
