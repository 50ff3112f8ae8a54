"""Tokenizers in tiktoken's form: lines of a token in base64 and its rank, which is its id as well.

The file says neither how texts are split into words nor which special tokens there are: the model's code does. What is
known of that code is a table here, by the names that the class and the file have.
Ranks become merges as in transformers' TikTokenConverter.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.errors import ModelError
from mindgen.text.fast_tokenizer import (
    BYTE_OF_CHARACTER,
    GPT2_WORDS,
    LLAMA3_WORDS,
    QWEN2_WORDS,
    add_tokens,
    check_class,
    put_ends,
    words_and_bytes,
)
from mindgen.text.tokenizer_config import (
    ConfiguredToken,
    read_configured_tokens,
    read_special_tokens,
    read_tokenizer_class,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SUFFIX = ".tiktoken"
_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})")
_LONGEST_TOKEN = 1024  # bytes: what is done for each grows with the square of its length
_CHARACTER_OF_BYTE = {byte: character for character, byte in BYTE_OF_CHARACTER.items()}
_END = "<|endoftext|>"
_UPPER, _LOWER, _SHORTENED = (
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
)
_O200K_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORTENED}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORTENED}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class TiktokenKind:
    """What the code of a family of tokenizers says.

    Attributes:
        words: the expression by which texts are split.
        special_tokens: as many ids behind the number of ranks.
        named: which of them is the "eos_token", and so on.
        begin: what stands before prompts.
        composes: texts are normalized (NFC) before.
    """

    words: str
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=lambda: {"eos_token": _END})
    begin: tuple[str, ...] = ()
    composes: bool = False


_KINDS = {
    # Of its 256 special tokens those that all versions have; the configuration tells of others.
    "llama3": TiktokenKind(
        LLAMA3_WORDS,
        {
            "<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|start_header_id|>": 6, "<|end_header_id|>": 7,
            "<|eot_id|>": 9,
        },
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        begin=("<|begin_of_text|>",),
    ),
    "qwen": TiktokenKind(
        QWEN2_WORDS,
        {name: place for place, name in enumerate(
            [_END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205))]
        )},
        composes=True,
    ),
    "glm4": TiktokenKind(LLAMA3_WORDS, begin=("[gMASK]", "<sop>")),
    "cl100k_base": TiktokenKind(
        LLAMA3_WORDS.replace(r"|\s*[\r\n]", r"|\s++\z|\s*[\r\n]"),
        {_END: 1, "<|fim_prefix|>": 2, "<|fim_middle|>": 3, "<|fim_suffix|>": 4, "<|endofprompt|>": 20},
    ),
    "o200k_base": TiktokenKind(_O200K_WORDS, {_END: 1, "<|endofprompt|>": 20}),
    "r50k_base": TiktokenKind(GPT2_WORDS, {_END: 0}),
    "gpt2": TiktokenKind(GPT2_WORDS, {_END: 0}),
}  # fmt: skip
_CLASSES = {
    "LlamaTokenizer": "llama3", "QWenTokenizer": "qwen", "ChatGLM4Tokenizer": "glm4", "GPT2Tokenizer": "gpt2",
}  # fmt: skip
_MODEL_TYPES = {"llama": "llama3", "qwen": "qwen", "chatglm": "glm4", "glm": "glm4", "glm4": "glm4", "gpt2": "gpt2"}


def is_tiktoken(path: Path) -> bool:
    """Whether a tokenizer.model is in this form, and not sentencepiece's."""
    try:
        with path.open("rb") as file:
            return _LINE.fullmatch(file.readline(2 * _LONGEST_TOKEN).rstrip(b"\r\n")) is not None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def read_tiktoken(path: Path, config: Mapping[str, Any], model_type: str) -> tuple["Tokenizer", dict[str, Any]]:
    """The tokenizer, and its configuration with what its class has without saying so.

    Raises:
        ModelError: the file is damaged, or its folder does not tell of which kind it is.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    kind = _KINDS[_kind_name(path, config, model_type)]
    config = {**kind.named, **config}
    ranks = _read_ranks(path)
    tokens = _tokens(path, len(ranks), kind, config)
    vocabulary = _with_tokens(path, ranks, tokens)
    tokenizer = Tokenizer(models.BPE(vocabulary, _merges(ranks), ignore_merges=True))
    tokenizer.pre_tokenizer = words_and_bytes(kind.words)
    tokenizer.normalizer = normalizers.NFC() if kind.composes else None
    tokenizer.decoder = decoders.ByteLevel()
    add_tokens(tokenizer, tokens, path.parent)
    before = kind.begin if config.get("add_bos_token", True) else ()
    behind = [read_special_tokens(config).get("eos_token", "")] if config.get("add_eos_token") else []
    put_ends(tokenizer, list(before), behind, path.parent)
    return tokenizer, config


def _kind_name(path: Path, config: Mapping[str, Any], model_type: str) -> str:
    """As the class and the file are called; where neither says anything, as the model is."""
    class_name, known = read_tokenizer_class(config), ", ".join(_KINDS)
    check_class(path.parent, class_name, path.name, tuple(_CLASSES))
    said = [_CLASSES[class_name]] if class_name is not None else []
    said += [path.stem] if path.stem in _KINDS else []
    if len(set(said)) > 1:
        raise ModelError(f"{path}: the file's name says {path.stem}, tokenizer_class {class_name}: correct one of them")
    found = said[0] if said else _MODEL_TYPES.get(model_type)
    if found is None:
        raise ModelError(
            f"{path}: nothing in its folder says how this tokenizer splits texts: set tokenizer_class in "
            f"tokenizer_config.json to {' or '.join(_CLASSES)}, or call the file NAME{SUFFIX}, with a NAME of {known}"
        )
    return found


def _read_ranks(path: Path) -> dict[str, int]:
    """The ranks of tokens, which are written with a character for each byte."""
    ranks: dict[str, int] = {}
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        try:
            token = base64.b64decode(match[1], validate=True) if match else b""
        except binascii.Error:
            token = b""
        if match is None or not 0 < len(token) <= _LONGEST_TOKEN:
            if not line:
                continue
            raise ModelError(
                f"{path}, line {number}: expected a token of up to {_LONGEST_TOKEN} bytes in base64 and its rank, not "
                f"{line[:40].decode('ascii', 'replace')!r}"
            )
        name, rank = "".join(_CHARACTER_OF_BYTE[byte] for byte in token), int(match[2])
        if name in ranks or rank >= 2 * len(lines):
            raise ModelError(f"{path}, line {number}: the token comes twice, or its rank {rank} is beyond all others")
        ranks[name] = rank
    if len(set(ranks.values())) < len(ranks):
        raise ModelError(f"{path}: two tokens have the same rank")
    missing = len(BYTE_OF_CHARACTER.keys() - ranks.keys())
    if missing:
        raise ModelError(f"{path}: {missing} of the 256 bytes are no tokens, so not every text can be written: damaged")
    return ranks


def _merges(ranks: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs that make each token, in the order of the ranks."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = [(token[:end], token[end:]) for end in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        merges += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges


def _tokens(path: Path, num_ranks: int, kind: TiktokenKind, config: Mapping[str, Any]) -> list[ConfiguredToken]:
    """Those that the configuration adds, and those of the code whose names and ids it does not mention."""
    configured = read_configured_tokens(path.parent, config)
    ids = {token.token_id for token in configured}
    names = {token.content for token in configured if token.token_id is not None}
    own = {
        name: num_ranks + place
        for name, place in kind.special_tokens.items()
        if name not in names and num_ranks + place not in ids
    }
    rest = [token for token in configured if token.content not in own]
    return [*(ConfiguredToken(name, token_id) for name, token_id in own.items()), *rest]


def _with_tokens(path: Path, ranks: Mapping[str, int], tokens: Iterable[ConfiguredToken]) -> dict[str, int]:
    """The vocabulary with those tokens in it whose ids are known, for there may be holes before them."""
    vocabulary, used = dict(ranks), set(ranks.values())
    for token in tokens:
        if token.token_id is None or token.content in vocabulary:
            continue
        if token.token_id in used:
            raise ModelError(
                f"{path}: the added token {token.content!r} has id {token.token_id}, which is another token's: they "
                "are of different models"
            )
        vocabulary[token.content] = token.token_id
        used.add(token.token_id)
    return vocabulary
