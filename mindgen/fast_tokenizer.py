"""Tokenizers of the tokenizers package, from the files that they come in."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What GPT-2's tokenizer has without saying so.
GPT2_END = "<|endoftext|>"


def read_tokenizer_json(path: Path) -> "Tokenizer":
    """The tokenizer that the file describes.

    Raises:
        ModelError: the file is damaged.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise ModelError(f"{path} is no usable tokenizer.json: {error}") from error


def read_vocab_and_merges(
    folder: Path,
    add_prefix_space: bool,
    bos_token: str | None,
    added: Mapping[int, Mapping[str, Any]],
    special_tokens: Iterable[str],
) -> "Tokenizer":
    """The byte-level BPE of GPT-2's vocab.json and merges.txt.

    Args:
        bos_token: what prompts begin with, if anything.
        added: tokens behind the vocabulary, by id.
        special_tokens: those that stand for no text.

    Raises:
        ModelError: a file is missing or damaged.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:
        raise ModelError(f"{vocab} and {merges} are no usable vocabulary and merges: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    known = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    for _, token in sorted(added.items()):
        tokenizer.add_tokens([AddedToken(**{key: token[key] for key in known if key in token})])
    tokenizer.add_special_tokens(list(special_tokens))
    if bos_token is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos_token} $A", special_tokens=[(bos_token, tokenizer.token_to_id(bos_token))]
        )
    return tokenizer
