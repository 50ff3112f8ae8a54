"""A tokenizer with the interface of MindFormers' and Hugging Face's."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mindgen.errors import RequestError
from mindgen.text.chat_template import ChatTemplates
from mindgen.text.tokenizer import Tokenizer

# The first that a tokenizer has fills the rows of a batch.
_PAD_TOKENS = ("pad_token", "unk_token", "eos_token")


class PretrainedTokenizer:
    """Texts to ids, one or several at a time, and back. Streamers take it in place of the tokenizer within.

    Attributes:
        tokenizer: what does the work.
        pad_token_id: None where the tokenizer has no token that could fill rows.
    """

    def __init__(self, tokenizer: Tokenizer, templates: ChatTemplates) -> None:
        self.tokenizer = tokenizer
        self._templates = templates
        self.pad_token_id = find_pad_token(tokenizer)

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not yet there while it is unpickled
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    @property
    def bos_token_id(self) -> int | None:
        return self.tokenizer.bos_id

    @property
    def eos_token_id(self) -> int | None:
        return self.tokenizer.eos_id

    def __len__(self) -> int:
        return self.tokenizer.vocab_size

    def __call__(
        self,
        text: str | Sequence[str],
        add_special_tokens: bool = True,
        padding: bool | Literal["longest", "max_length"] = False,
        max_length: int | None = None,
        truncation: bool = False,
        padding_side: Literal["left", "right"] = "right",
        return_tensors: Literal["np"] | None = None,
    ) -> dict[str, Any]:
        """{"input_ids", "attention_mask"}: of one text a row of each, of several a list of rows.

        Args:
            padding: True or "longest" fills all rows to the length of the longest, "max_length" to max_length.
            truncation: cut rows after max_length tokens.
            return_tensors: "np" for arrays (B, T), also of one text.

        Raises:
            RequestError: the arguments do not go together.
        """
        if return_tensors not in (None, "np"):
            raise RequestError(f"return_tensors must be None or 'np', not {return_tensors!r}")
        if max_length is None and (truncation or padding == "max_length"):
            raise RequestError("padding='max_length' and truncation need max_length")
        texts = [text] if isinstance(text, str) else list(text)
        rows = [self.tokenizer.encode(each, add_special_tokens) for each in texts]
        if truncation:
            rows = [row[:max_length] for row in rows]
        width = (max_length or 0) if padding == "max_length" else max(map(len, rows), default=0) if padding else 0
        padded = [self._pad(row, width, padding_side) for row in rows]
        masks = [_filled([1] * len(row), 0, width, padding_side) for row in rows]
        if return_tensors == "np":
            if len(set(map(len, padded))) > 1:
                raise RequestError("rows of several lengths make no array: pass padding=True")
            return {"input_ids": np.array(padded, np.int32), "attention_mask": np.array(masks, np.int32)}
        if isinstance(text, str):
            return {"input_ids": padded[0], "attention_mask": masks[0]}
        return {"input_ids": padded, "attention_mask": masks}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens)

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> Any:
        """The text of ids, or the list of texts of a list of rows, as `generate` returns them."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        if isinstance(ids, int):
            ids = [ids]
        if len(ids) > 0 and np.ndim(ids[0]) > 0:
            return self.batch_decode(ids, skip_special_tokens)
        return self.tokenizer.decode([int(token_id) for token_id in ids], skip_special_tokens)

    def batch_decode(self, sequences: Sequence[Any], skip_special_tokens: bool = False) -> list[str]:
        return [self.decode(row, skip_special_tokens) for row in sequences]

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **template_variables: Any,
    ) -> Any:
        """The ids, or the text, of the prompt that the model's chat template makes of a conversation."""
        text = self._templates.render(conversation, add_generation_prompt, **template_variables)
        return self.tokenizer.encode(text, add_special_tokens=False) if tokenize else text

    def _pad(self, row: list[int], width: int, side: str) -> list[int]:
        if len(row) >= width:
            return row
        if self.pad_token_id is None:
            raise RequestError("the tokenizer has no token to pad with: set its pad_token_id")
        return _filled(row, self.pad_token_id, width, side)


def find_pad_token(tokenizer: Tokenizer) -> int | None:
    """The token that fills the rows of a batch: for padding, unknown text or the end, the first that there is."""
    ids = (tokenizer.token_id(tokenizer.special_tokens.get(name, "")) for name in _PAD_TOKENS)
    return next((token_id for token_id in ids if token_id is not None), None)


def _filled(row: list[int], value: int, width: int, side: str) -> list[int]:
    filling = [value] * (width - len(row))
    return filling + row if side == "left" else row + filling
