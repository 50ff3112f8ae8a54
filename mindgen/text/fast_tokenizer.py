"""Tokenizers of the tokenizers package, from the files that they come in."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.errors import ModelError
from mindgen.text.tokenizer_config import (
    ConfiguredToken,
    read_configured_tokens,
    read_special_tokens,
    read_tokenizer_class,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_END = "<|endoftext|>"
# What the classes of vocab.json and merges.txt have without saying so.
_CLASS_TOKENS: dict[str, dict[str, str]] = {
    "GPT2Tokenizer": {"bos_token": _END, "eos_token": _END, "unk_token": _END},
    "Qwen2Tokenizer": {"eos_token": _END, "unk_token": _END, "pad_token": _END},
}
# Expressions of the words into which texts are split.
GPT2_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = QWEN2_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others for 256 and on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_level_alphabet()


def read_tokenizer_json(path: Path, config: Mapping[str, Any]) -> "Tokenizer":
    """The tokenizer that the file describes.

    Raises:
        ModelError: the file is damaged.
    """
    from tokenizers import Tokenizer, pre_tokenizers

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise ModelError(f"{path} is no usable tokenizer.json: {error}") from error
    adds_space = config.get("add_prefix_space")
    if isinstance(adds_space, bool) and read_tokenizer_class(config) == "GPT2Tokenizer" and tokenizer.pre_tokenizer:
        state = json.loads(tokenizer.pre_tokenizer.__getstate__())
        if state.pop("type") == "ByteLevel":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{**state, "add_prefix_space": adds_space})
    return tokenizer


def read_vocab_and_merges(
    folder: Path, config: Mapping[str, Any], model_type: str
) -> tuple["Tokenizer", dict[str, Any]]:
    """The byte-level BPE of vocab.json and merges.txt, as its class splits texts into words, and its configuration with
    what the class has without saying so. Where no class is named, the type of the model tells.

    Raises:
        ModelError: a file is missing or damaged, or the class is not known.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    class_name = read_tokenizer_class(config) or (
        "Qwen2Tokenizer" if model_type.startswith("qwen") else "GPT2Tokenizer"
    )
    check_class(folder, class_name, "vocab.json and merges.txt", tuple(_CLASS_TOKENS))
    config = {**_CLASS_TOKENS[class_name], **config, "tokenizer_class": class_name}
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:
        raise ModelError(f"{vocab} and {merges} are no usable vocabulary and merges: {error}") from error
    adds_space = bool(config.get("add_prefix_space"))
    if class_name == "Qwen2Tokenizer":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = words_and_bytes(QWEN2_WORDS, adds_space)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_space)
    tokenizer.decoder = decoders.ByteLevel()
    add_tokens(tokenizer, read_configured_tokens(folder, config), folder)
    named = read_special_tokens(config)
    before, behind = (
        [named[f"{name}_token"]] if config.get(f"add_{name}_token") and f"{name}_token" in named else []
        for name in ("bos", "eos")
    )
    put_ends(tokenizer, before, behind, folder)
    return tokenizer, config


def check_class(folder: Path, class_name: str | None, files: str, known: Sequence[str]) -> None:
    """Raises ModelError where the configuration names a class that does not read such files as mindgen does."""
    if class_name not in (None, *known):
        raise ModelError(
            f"{folder}: tokenizer_class {class_name} is not known for {files} (only {', '.join(known)}): "
            "add the model's tokenizer.json"
        )


def add_tokens(tokenizer: "Tokenizer", tokens: Iterable[ConfiguredToken], folder: Path) -> None:
    """Adds what the tokenizer does not know yet, or not with these properties.

    Raises:
        ModelError: the configuration's id of a token is not the one that the vocabulary gives it.
    """
    from tokenizers import AddedToken

    known = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    for token in tokens:
        properties = asdict(token)
        expected = properties.pop("token_id")
        added = AddedToken(**properties)
        found = known.get(token.content)
        if found is None or (expected is not None and repr(found) != repr(added)):
            tokenizer.add_tokens([added])
        token_id = tokenizer.token_to_id(token.content)
        if expected not in (None, token_id):
            raise ModelError(
                f"{folder}: the added token {token.content!r} has id {expected} in the configuration, "
                f"but {token_id} in the vocabulary: they are of different models"
            )


def words_and_bytes(words: str, adds_space: bool = False) -> Any:
    """Splits texts into the words of an expression, and these into bytes."""
    from tokenizers import Regex, pre_tokenizers

    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=adds_space, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), bytes_of_words])


def put_ends(tokenizer: "Tokenizer", before: list[str], behind: list[str], where: Path | str) -> None:
    """Puts these tokens before and behind prompts.

    Raises:
        ModelError: the vocabulary lacks one.
    """
    from tokenizers import processors

    ids = {token: tokenizer.token_to_id(token) for token in [*before, *behind]}
    missing = [token for token, token_id in ids.items() if token_id is None]
    if missing:
        raise ModelError(f"{where}: prompts begin or end with {missing[0]}, which the tokenizer's vocabulary lacks")
    if ids:
        template = [*before, "$A", *behind]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(ids.items()))
