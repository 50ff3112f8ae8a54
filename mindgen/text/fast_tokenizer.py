"""Tokenizers of the tokenizers package, from the files that they come in."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.errors import ModelError
from mindgen.text.tokenizer_config import ConfiguredToken, read_special_tokens, read_tokenizer_class

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_END = "<|endoftext|>"
# What the classes of vocab.json and merges.txt have without saying so.
CLASS_TOKENS: dict[str, dict[str, str]] = {
    "GPT2Tokenizer": {"bos_token": _END, "eos_token": _END, "unk_token": _END},
    "Qwen2Tokenizer": {"eos_token": _END, "unk_token": _END, "pad_token": _END},
}
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


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


def read_vocab_and_merges(folder: Path, class_name: str, config: Mapping[str, Any]) -> "Tokenizer":
    """The byte-level BPE of vocab.json and merges.txt, as its class, one of CLASS_TOKENS, splits texts into words.

    Raises:
        ModelError: a file is missing or damaged.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:
        raise ModelError(f"{vocab} and {merges} are no usable vocabulary and merges: {error}") from error
    adds_space = bool(config.get("add_prefix_space"))
    if class_name == "Qwen2Tokenizer":
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated")
        characters = pre_tokenizers.ByteLevel(add_prefix_space=adds_space, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, characters])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_space)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


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


def add_ends(tokenizer: "Tokenizer", config: Mapping[str, Any]) -> None:
    """Puts the special tokens before and behind prompts that add_bos_token and add_eos_token ask for."""
    from tokenizers import processors

    named = read_special_tokens(config)
    before, behind = (
        [named[f"{name}_token"]] if config.get(f"add_{name}_token") and f"{name}_token" in named else []
        for name in ("bos", "eos")
    )
    if before or behind:
        ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys([*before, *behind])]
        tokenizer.post_processor = processors.TemplateProcessing(single=[*before, "$A", *behind], special_tokens=ids)
