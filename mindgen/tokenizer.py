"""Text to token ids and back: a Hugging Face tokenizer.json, or a sentencepiece tokenizer.model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mindgen.checkpoint.json_file import read_json_object
from mindgen.errors import ModelError

_REPLACEMENT = "\ufffd"


class Tokenizer(Protocol):
    """What mindgen asks of a tokenizer; special tokens are left out of decoded text."""

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, with the special tokens that the model expects around it."""

    def decode(self, token_ids: Sequence[int]) -> str: ...


class HuggingFaceTokenizer:
    """A tokenizer.json, through the tokenizers package."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        try:
            self._tokenizer = FastTokenizer.from_file(str(path))
        except Exception as error:  # the package raises bare Exception
            raise ModelError(f"{path} is no usable tokenizer.json: {error}") from error

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)


class SentencePieceTokenizer:
    """A tokenizer.model; tokenizer_config.json tells whether prompts begin with BOS (Llama's do) or end with EOS."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        from sentencepiece import SentencePieceProcessor

        self._processor = SentencePieceProcessor()
        try:
            self._processor.Load(str(path))
        except (OSError, RuntimeError) as error:
            raise ModelError(f"{path} is no usable sentencepiece model: {error}") from error
        self._prefix = [self._processor.bos_id()] if config.get("add_bos_token", True) else []
        self._suffix = [self._processor.eos_id()] if config.get("add_eos_token", False) else []

    def encode(self, text: str) -> list[int]:
        return [*self._prefix, *self._processor.EncodeAsIds(text), *self._suffix]

    def decode(self, token_ids: Sequence[int]) -> str:
        # Padded vocabularies have ids past the last piece; they stand for no text.
        size = self._processor.GetPieceSize()
        return self._processor.DecodeIds([token_id for token_id in token_ids if token_id < size])


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    if (folder / "tokenizer.json").is_file():
        return HuggingFaceTokenizer(folder / "tokenizer.json")
    if (folder / "tokenizer.model").is_file():
        config_path = folder / "tokenizer_config.json"
        config = read_json_object(config_path, ModelError) if config_path.is_file() else {}
        return SentencePieceTokenizer(folder / "tokenizer.model", config)
    raise ModelError(f"{folder} has neither tokenizer.json nor tokenizer.model")


class IncrementalDetokenizer:
    """Turns a growing list of tokens into text that is never taken back.

    A character split over several tokens is held until it is whole. The chunks joined are the text that follows
    the prompt; a short window of earlier tokens is decoded along, for sentencepiece drops a text's first space.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int], window: int = 8) -> None:
        self._tokenizer = tokenizer
        self._pending = list(prompt_token_ids[-window:])
        self._num_emitted = len(self._pending)
        self._window = window

    def append(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete."""
        self._pending.extend(token_ids)
        emitted = self._tokenizer.decode(self._pending[: self._num_emitted])
        text = self._tokenizer.decode(self._pending)
        if len(text) <= len(emitted) or text.endswith(_REPLACEMENT):
            return ""
        self._pending = self._pending[-self._window :]
        self._num_emitted = len(self._pending)
        return text[len(emitted) :]

    def flush(self) -> str:
        """What is still held: the text of an incomplete character."""
        emitted = self._tokenizer.decode(self._pending[: self._num_emitted])
        text = self._tokenizer.decode(self._pending)
        self._num_emitted = len(self._pending)
        return text[len(emitted) :]
