"""The tokenizer in the metadata of a GGUF file, as the files of a Hugging Face folder.

Types of tokens and the splitting of texts into words follow llama.cpp's src/llama-vocab.cpp, which reads such files.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mindgen.errors import ModelError
from mindgen.system.protobuf import encode_field
from mindgen.text.fast_tokenizer import LLAMA3_WORDS, QWEN2_WORDS, put_ends, words_and_bytes
from mindgen.weights.gguf_metadata import typed_value

UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(7)
_ELEMENTS: dict[type, str] = {str: "texts", np.number: "numbers", np.integer: "integers"}
_MOST_SCORE = float(np.finfo(np.float32).max)
# By tokenizer.ggml.pre: digits one by one before GPT-2's words, or words of an expression.
_GPT2_WORDS = ("gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "mpt", "olmo", "jais")
_DIGITS_ALONE = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
_WORDS = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "smaug-bpe", "dbrx"), LLAMA3_WORDS),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan"), QWEN2_WORDS),
}
_NAMED = {
    "bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}  # fmt: skip


def tokenizer_files(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """tokenizer.json or tokenizer.model, and tokenizer_config.json, by name.

    Raises:
        ModelError: there is no tokenizer, it is malformed, or of a kind that is not served.
    """
    vocabulary = _Vocabulary(metadata)
    kind = typed_value(metadata, "tokenizer.ggml.model", str)
    if kind == "gpt2":
        name, content, config = "tokenizer.json", _byte_level_json(vocabulary), _byte_level_config(vocabulary)
    elif kind == "llama":
        name, content, config = "tokenizer.model", _sentencepiece_model(vocabulary), _sentencepiece_config(vocabulary)
    else:
        raise ModelError(f"GGUF: tokenizer.ggml.model {kind!r} is not served; served are gpt2 and llama")
    config |= vocabulary.named_tokens() | _chat_templates(metadata)
    return {name: content, "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1).encode()}


class _Vocabulary:
    """Checked lists of the metadata."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.tokens: list[str] = self._list("tokens", str)
        if not self.tokens:
            raise ModelError("GGUF: the file has no tokenizer.ggml.tokens, so no tokenizer")
        self.types = [int(each) for each in self._list("token_type", np.integer)] or [NORMAL] * len(self.tokens)
        if len(self.types) != len(self.tokens):
            raise ModelError(f"GGUF: tokenizer.ggml has {len(self.tokens)} tokens and {len(self.types)} types of them")
        unknown = set(self.types) - {UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE}
        if unknown:
            raise ModelError(f"GGUF: tokenizer.ggml.token_type has {min(unknown)}, which is no type of a token")

    def text(self, key: str) -> str:
        return typed_value(self._metadata, f"tokenizer.ggml.{key}", str) or ""

    def flag(self, key: str, default: bool) -> bool:
        found = typed_value(self._metadata, f"tokenizer.ggml.{key}", bool)
        return default if found is None else bool(found)

    def texts(self, key: str) -> list[str]:
        return self._list(key, str)

    def scores(self) -> Sequence[float]:
        scores = [float(each) for each in self._list("scores", np.number)]
        if len(scores) != len(self.tokens):
            raise ModelError(f"GGUF: tokenizer.ggml has {len(self.tokens)} tokens and {len(scores)} scores of them")
        wrong = next((each for each in scores if not abs(each) <= _MOST_SCORE), None)
        if wrong is not None:
            raise ModelError(f"GGUF: tokenizer.ggml.scores has {wrong}, which is no score in single precision")
        return scores

    def bytes(self, key: str) -> bytes:
        found = self._metadata.get(f"tokenizer.ggml.{key}", np.zeros(0, np.uint8))
        if not isinstance(found, np.ndarray) or found.dtype.itemsize != 1:
            raise ModelError(f"GGUF: tokenizer.ggml.{key} is no list of bytes")
        return found.tobytes()

    def id(self, key: str) -> int | None:
        found: int | None = typed_value(self._metadata, f"tokenizer.ggml.{key}", int)
        if found is not None and not 0 <= found < len(self.tokens):
            raise ModelError(f"GGUF: tokenizer.ggml.{key} {found!r} is none of the {len(self.tokens)} tokens")
        return found

    def end(self, key: str) -> list[str]:
        """The token that stands before or behind all texts."""
        found = self.id(key)
        if found is None:
            raise ModelError(
                "GGUF: tokenizer.ggml adds a begin or an end to texts, and does not say which token that is"
            )
        return [self.tokens[found]]

    def named_tokens(self) -> dict[str, str]:
        ids = {name: self.id(key) for name, key in _NAMED.items()}
        return {name: self.tokens[token_id] for name, token_id in ids.items() if token_id is not None}

    def _list(self, key: str, kind: type) -> list[Any]:
        found = self._metadata.get(f"tokenizer.ggml.{key}", [])
        numbers = isinstance(found, np.ndarray) and np.issubdtype(found.dtype, kind)
        if not numbers and not (isinstance(found, list) and all(isinstance(each, kind) for each in found)):
            raise ModelError(f"GGUF: tokenizer.ggml.{key} is no list of {_ELEMENTS[kind]}")
        return list(found)


def _byte_level_json(vocabulary: _Vocabulary) -> bytes:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    kinds = zip(vocabulary.tokens, vocabulary.types, strict=True)
    ids = {token: token_id for token_id, (token, kind) in enumerate(kinds) if kind != UNUSED}
    if len(ids) != len(vocabulary.tokens) - vocabulary.types.count(UNUSED):
        raise ModelError("GGUF: tokenizer.ggml.tokens has a token twice")
    merges = [tuple(merge.split(" ")) for merge in vocabulary.texts("merges")]
    wrong = next((merge for merge in merges if len(merge) != 2), None)
    if wrong is not None:
        raise ModelError(f"GGUF: tokenizer.ggml.merges has {' '.join(wrong)!r}, which is no pair")
    pre = vocabulary.text("pre")
    try:
        model = models.BPE(ids, merges, ignore_merges=ignores_merges(pre))
    except Exception as error:  # the package raises bare Exception
        raise ModelError(f"GGUF: tokenizer.ggml.merges do not fit the tokens: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.normalizer = splitting(pre)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=kind != USER_DEFINED, normalized=kind == USER_DEFINED)
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    before = vocabulary.end("bos_token_id") if _adds_bos(vocabulary, pre) else []
    behind = vocabulary.end("eos_token_id") if _adds_eos(vocabulary) else []
    put_ends(tokenizer, before, behind, "GGUF")
    text: str = tokenizer.to_str()
    return text.encode()


def _adds_bos(vocabulary: _Vocabulary, pre: str) -> bool:
    return vocabulary.flag("add_bos_token", ignores_merges(pre))


def _adds_eos(vocabulary: _Vocabulary) -> bool:
    return vocabulary.flag("add_eos_token", False)


def known_splittings() -> list[str]:
    """The names of tokenizer.ggml.pre; of those that mean the same the first is the usual one."""
    return [*_GPT2_WORDS, *_DIGITS_ALONE, *_WORDS]


def ignores_merges(pre: str) -> bool:
    """Whether a word that is a token is that token, whatever the merges say."""
    return _WORDS.get(pre) is LLAMA3_WORDS


def splitting(pre: str) -> tuple[Any, Any]:
    """How texts are split into words by a pre-tokenizer, and the normalizer of what is done to them before, or None.

    Raises:
        ModelError: that name of tokenizer.ggml.pre is not known.
    """
    from tokenizers import normalizers, pre_tokenizers

    if pre in _WORDS:
        return words_and_bytes(_WORDS[pre]), normalizers.NFC() if _WORDS[pre] is QWEN2_WORDS else None
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in _GPT2_WORDS:
        return gpt2, None
    if pre in _DIGITS_ALONE:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2]), None
    known = ", ".join(sorted(known_splittings()))
    raise ModelError(
        f"GGUF: tokenizer.ggml.pre {pre!r}, by which texts are split into words, is not served; served are {known}: "
        "put the model's tokenizer.json beside it as a Hugging Face folder"
    )


def _byte_level_config(vocabulary: _Vocabulary) -> dict[str, Any]:
    return {"tokenizer_class": "PreTrainedTokenizerFast"}


def _sentencepiece_model(vocabulary: _Vocabulary) -> bytes:
    """sentencepiece's ModelProto: a BPE whose pieces merge by their scores, with a piece for each byte."""
    content = bytearray()
    scores = vocabulary.scores()
    count = len(vocabulary.tokens)
    while count and vocabulary.types[count - 1] == UNUSED:  # the model has places there, and no tokens
        count -= 1
    for token, score, kind in zip(vocabulary.tokens[:count], scores, vocabulary.types, strict=False):
        piece = encode_field(1, token.encode())
        piece += bytes([2 << 3 | 5]) + struct.pack("<f", score) + encode_field(3, kind)
        content += encode_field(1, piece)
    trainer = encode_field(3, 2)  # model_type BPE
    trainer += encode_field(35, int(BYTE in vocabulary.types))  # byte_fallback
    for field, key in ((40, "unknown_token_id"), (41, "bos_token_id"), (42, "eos_token_id")):
        token_id = vocabulary.id(key)
        if token_id is not None:
            trainer += encode_field(field, token_id)
            trainer += encode_field(field + 5, vocabulary.tokens[token_id].encode())
    normalizer = encode_field(1, b"identity")
    charsmap = vocabulary.bytes("precompiled_charsmap")
    if charsmap:
        normalizer += encode_field(2, charsmap)
    normalizer += encode_field(3, int(vocabulary.flag("add_space_prefix", True)))
    normalizer += encode_field(4, int(vocabulary.flag("remove_extra_whitespaces", False)))
    normalizer += encode_field(5, 1)  # escape_whitespaces
    content += encode_field(2, trainer) + encode_field(3, normalizer)
    return bytes(content)


def _sentencepiece_config(vocabulary: _Vocabulary) -> dict[str, Any]:
    decoder = {
        str(token_id): {"content": token, "special": kind != USER_DEFINED}
        for token_id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    }
    return {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": vocabulary.flag("add_bos_token", True),
        "add_eos_token": _adds_eos(vocabulary),
        "add_prefix_space": vocabulary.flag("add_space_prefix", True),
        "legacy": True,  # llama.cpp too puts a space behind special tokens
        "added_tokens_decoder": decoder,
    }


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, Any]:
    key = "tokenizer.chat_template"
    default = typed_value(metadata, key, str)
    names = [name for name in metadata if name.startswith(f"{key}.")]
    named = {name.removeprefix(f"{key}."): typed_value(metadata, name, str) for name in names}
    if not named:
        return {} if default is None else {"chat_template": default}
    templates = ({} if default is None else {"default": default}) | named
    return {"chat_template": [{"name": name, "template": text} for name, text in templates.items()]}
