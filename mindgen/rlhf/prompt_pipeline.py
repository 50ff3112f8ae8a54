"""Prompts as rows of tokens, for a data loader."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mindgen.errors import RequestError
from mindgen.system.checks import require_text, shown, to_integer

Row = dict[str, Any]


class PromptPipeline:
    """A dataset of {"input_ids": [...], "prompt": ...}, one row for each prompt.

    Args:
        prompts: texts; or rows, whose text is under `prompt_key` and whose other keys stay.
        max_prompt_length: so many of a prompt's first letters are tokenized, as ChatLearn's pipeline does. Letters, not
            tokens: the module cuts what is still too long when it is asked to generate.
        tokenizer: what has an `encode` from a text to token ids.

    Raises:
        RequestError: a prompt is no text, or empty; or max_prompt_length is less than 1.
    """

    def __init__(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        max_prompt_length: int,
        tokenizer: Any = None,
        prompt_key: str = "prompt",
    ) -> None:
        if tokenizer is None:
            raise RequestError("PromptPipeline needs a tokenizer, like that of the module: tokenizer.tokenizer")
        to_integer("max_prompt_length", max_prompt_length, 1)
        if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, Sequence):
            raise RequestError(f"prompts must be a list of texts or of rows, not {shown(prompts)}")
        self.tokenizer = tokenizer
        self.prompts_ids = [self._row(place, each, max_prompt_length, prompt_key) for place, each in enumerate(prompts)]

    def __len__(self) -> int:
        return len(self.prompts_ids)

    def __getitem__(self, place: int) -> Row:
        return self.prompts_ids[place]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.prompts_ids)

    def collate_fn(self, samples: Sequence[Row]) -> dict[str, list[Any]]:
        """The samples' values under each of their keys, for a data loader: {"input_ids": [[...], ...], ...}.

        Raises:
            RequestError: there are none, or one lacks a key of the first.
        """
        if not samples or any(sample.keys() != samples[0].keys() for sample in samples):
            raise RequestError("samples must be rows with the same keys, and at least one")
        return {key: [sample[key] for sample in samples] for key in samples[0]}

    def _row(self, place: int, prompt: str | Mapping[str, Any], max_prompt_length: int, prompt_key: str) -> Row:
        row = dict(prompt) if isinstance(prompt, Mapping) else {prompt_key: prompt}
        if prompt_key not in row:
            raise RequestError(f"prompt {place} has no {prompt_key!r}; its keys are {', '.join(map(str, row))}")
        text = row[prompt_key]
        require_text(f"prompt {place}", text)
        return row | {"input_ids": self.tokenizer.encode(text[:max_prompt_length]), "prompt": text}
