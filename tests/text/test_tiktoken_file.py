"""Tokenizers in tiktoken's form, against the tiktoken package and transformers."""

import base64
import json
import unicodedata
from pathlib import Path

import pytest
import tiktoken
from tiny_tokenizers import TORTURE, make_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter, bytes_to_unicode

from mindgen.errors import ModelError
from mindgen.store.find_model import find_tokenizer
from mindgen.text.tokenizer import load_tokenizer

END = "<|endoftext|>"
# As the models' own code has them.
CASES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GROUPS_OF_3 = CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS = GROUPS_OF_3.replace("{1,3}", "")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
R50K = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
LLAMA3 = {
    "<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|start_header_id|>": 6, "<|end_header_id|>": 7, "<|eot_id|>": 9,
}  # fmt: skip
QWEN = {
    name: place
    for place, name in enumerate([END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205))])
}
GLM4 = {END: 0, "[MASK]": 1, "[gMASK]": 2, "[sMASK]": 3, "<sop>": 4, "<eop>": 5, "<|system|>": 6, "<|user|>": 7}
# name: (file, what tells of it, words, special tokens behind the ranks, what stands before prompts)
KINDS = {
    "llama3": ("tokenizer.model", {"model_type": "llama"}, GROUPS_OF_3, LLAMA3, ["<|begin_of_text|>"]),
    "glm4": (
        "tokenizer.model",
        {"tokenizer_class": "ChatGLM4Tokenizer", "eos_token": END},
        GROUPS_OF_3,
        GLM4,
        ["[gMASK]", "<sop>"],
    ),
    "qwen": ("qwen.tiktoken", {}, DIGITS, QWEN, []),
    "qwen-class": ("tokenizer.model", {"tokenizer_class": "QWenTokenizer"}, DIGITS, QWEN, []),
    "cl100k_base": ("cl100k_base.tiktoken", {}, CL100K, {END: 1, "<|fim_prefix|>": 2, "<|endofprompt|>": 20}, []),
    "o200k_base": ("o200k_base.tiktoken", {}, O200K, {END: 1, "<|endofprompt|>": 20}, []),
    "gpt2": ("gpt2.tiktoken", {}, R50K, {END: 0}, []),
}


def ranks_of(folder: Path) -> dict[bytes, int]:
    """Those of a byte-level BPE, trained here."""
    content = json.loads((make_tokenizer("byte_level_bpe", folder) / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    special = {each["content"] for each in content["added_tokens"]}
    tokens = [bytes(map(byte_of.__getitem__, each)) for each in content["model"]["vocab"] if each not in special]
    return {token: rank for rank, token in enumerate(sorted(tokens, key=lambda token: (len(token), token)))}


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items()))
    return path


def write_folder(folder: Path, kind: str) -> tuple[dict[bytes, int], dict[str, int]]:
    """The ranks and the special tokens of what is written."""
    name, said, _, tokens, _ = KINDS[kind]
    ranks = ranks_of(folder)
    write_ranks(folder / name, ranks)
    special = {token: len(ranks) + place for token, place in tokens.items()}
    file = "config.json" if "model_type" in said else "tokenizer_config.json"
    decoder = {str(token_id): {"content": token, "special": True} for token, token_id in special.items()}
    if kind == "glm4":
        said = {**said, "added_tokens_decoder": decoder}
    if said:
        (folder / file).write_text(json.dumps(said))
    return ranks, special


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_are_those_of_tiktoken(kind, tmp_path):
    """A special token in each text as well, and any bytes, whole characters or not."""
    _, _, words, _, begin = KINDS[kind]
    ranks, special = write_folder(tmp_path, kind)
    oracle = tiktoken.Encoding(kind, pat_str=words, mergeable_ranks=ranks, special_tokens=special)
    tokenizer = load_tokenizer(tmp_path)
    prefix = [special[name] for name in begin]
    last = list(special)[-1]
    for text in [*TORTURE, *(f"{text}{last}\n{text}" for text in TORTURE)]:
        composed = unicodedata.normalize("NFC", text) if kind.startswith("qwen") else text
        ids = oracle.encode(composed, allowed_special="all")
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.encode(text) == [*prefix, *ids]
        assert tokenizer.decode(ids, skip_special_tokens=False) == oracle.decode(ids) == composed
        shown = [token_id for token_id in ids if token_id < len(ranks)]
        assert tokenizer.decode(ids) == oracle.decode(shown)
        broken = shown[1:-1:2]
        assert tokenizer.decode(broken) == oracle.decode(broken)
    assert tokenizer.special_ids >= set(special.values())
    assert tokenizer.eos_id == special[END if END in special else "<|end_of_text|>"]
    assert find_tokenizer(tmp_path) == tmp_path


def test_merges_are_those_of_transformers(tmp_path):
    ranks = ranks_of(tmp_path)
    path = write_ranks(tmp_path / "tokenizer.model", ranks)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    theirs = PreTrainedTokenizerFast(tokenizer_object=TikTokenConverter(str(path)).converted())
    ours = load_tokenizer(tmp_path)
    ours._tokenizer.save(str(tmp_path / "ours"))
    saved = json.loads(Tokenizer.from_file(str(tmp_path / "ours")).to_str())["model"]
    expected = json.loads(theirs.backend_tokenizer.to_str())["model"]
    assert [tuple(merge) for merge in saved["merges"]] == [tuple(merge) for merge in expected["merges"]]
    for text in TORTURE:
        ids = theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False) == ids
        assert ours.decode(ids) == theirs.decode(ids)


def test_what_the_configuration_says(tmp_path):
    """Its tokens go before those of the code; ids may leave holes."""
    ranks = ranks_of(tmp_path)
    write_ranks(tmp_path / "tokenizer.model", ranks)
    size = len(ranks)
    decoder = {size + 8: "<|eom_id|>", size + 100: "<|python_tag|>", size + 9: "<|done|>"}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|done|>",
        "add_bos_token": False,
        "add_eos_token": True,
        "added_tokens_decoder": {str(id_): {"content": name, "special": True} for id_, name in decoder.items()},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("<|eom_id|><|python_tag|>") == [size + 8, size + 100, size + 9]
    assert tokenizer.token_id("<|eot_id|>") is None and tokenizer.token_id("<|end_header_id|>") == size + 7
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (size + 9, size + 101)
    config["added_tokens_decoder"] = {"5": {"content": "<|five|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="'<|five|>' has id 5, which is another token's"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("tokenizer.model", {}, "nothing in its folder says how this tokenizer splits texts"),
        ("own.tiktoken", {"tokenizer_class": "PreTrainedTokenizerFast"}, "nothing in its folder says how"),
        ("qwen.tiktoken", {"tokenizer_class": "Phi3SmallTokenizer"}, "Phi3SmallTokenizer is not known for qwen"),
        ("qwen.tiktoken", {"tokenizer_class": "ChatGLM4Tokenizer"}, "the file's name says qwen, tokenizer_class Chat"),
        ("tokenizer.model", {"tokenizer_class": "ChatGLM4Tokenizer"}, r"begin or end with \[gMASK\], which the"),
    ],
)
def test_what_is_not_told_is_refused(tmp_path, name, config, message):
    write_ranks(tmp_path / name, ranks_of(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_tokenizer(tmp_path)


def test_damaged_files(tmp_path):
    ranks = ranks_of(tmp_path)
    path = write_ranks(tmp_path / "qwen.tiktoken", ranks)
    whole = path.read_bytes()
    for content, message in (
        (whole + b"YQ== x\n", "line 328: expected a token of up to 1024 bytes in base64 and its rank, not 'YQ== x'"),
        (whole + b"YQ=== 900\n", "line 328: expected a token"),
        (whole + base64.b64encode(b"a" * 2000) + b" 327\n", "line 328: expected a token"),
        (whole + b"YQ== 327\n", "line 328: the token comes twice"),
        (whole + b"YWFhYWFh 99999\n", "its rank 99999 is beyond all others"),
        (whole + b"YWFhYWFh 3\n", "two tokens have the same rank"),
        (whole[20:], "bytes are no tokens"),
        (b"", "256 of the 256 bytes are no tokens"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            load_tokenizer(tmp_path)
    (tmp_path / "gpt2.tiktoken").write_bytes(whole)
    with pytest.raises(ModelError, match="several tokenizers, gpt2.tiktoken, qwen.tiktoken"):
        load_tokenizer(tmp_path)
