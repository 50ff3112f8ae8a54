"""How predictions are written: text that streams, or JSON lines."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from mindgen.errors import UsageError
from mindgen.outputs import CompletionOutput, RequestOutput, TextChunk, TokenLogprobs


class PredictionWriter(Protocol):
    def write(self, chunk: TextChunk) -> None: ...


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """Where predictions go: a file, or standard output when path is None."""

    is_jsonl: bool
    path: Path | None


def parse_target(target: str) -> OutputTarget:
    """What --output asks for: text or jsonl, or a file with such an ending.

    Raises:
        UsageError: it is none of these.
    """
    if target in ("text", "jsonl"):
        return OutputTarget(target == "jsonl", None)
    path = Path(target)
    if path.suffix not in (".txt", ".jsonl"):
        raise UsageError(f"--output must be text, jsonl, or a file ending in .txt or .jsonl, not {target!r}")
    return OutputTarget(path.suffix == ".jsonl", path)


@contextlib.contextmanager
def open_output(
    target: OutputTarget, prompts: Sequence[str], num_outputs: Sequence[int], first: int
) -> Iterator[PredictionWriter]:
    """The writer for a target.

    Args:
        num_outputs: of each prompt.
        first: which of the prompts is the first that is written.

    Raises:
        UsageError: the file cannot be written.
    """
    if target.path is None:
        yield _writer(target, sys.stdout, prompts, num_outputs, first)
        return
    try:
        file = target.path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target.path}: {error.strerror}") from error
    with file:
        yield _writer(target, file, prompts, num_outputs, first)


def _writer(
    target: OutputTarget, file: IO[str], prompts: Sequence[str], num_outputs: Sequence[int], first: int
) -> PredictionWriter:
    return JsonLinesWriter(file, prompts, first) if target.is_jsonl else TextWriter(file, prompts, num_outputs, first)


class TextWriter:
    """Each prompt with its continuation, in the order of the prompts; the first unfinished one streams.

    Several outputs of a prompt come below it when it is finished, each on a line that begins with its number, like [0].
    A prompt that failed is left out.
    """

    def __init__(self, file: IO[str], prompts: Sequence[str], num_outputs: Sequence[int], first: int) -> None:
        self._file = file
        self._prompts = prompts
        self._num_outputs = num_outputs
        self._current = first
        self._is_begun = False
        self._held: dict[int, str] = {}
        self._finished: dict[int, RequestOutput] = {}

    def write(self, chunk: TextChunk) -> None:
        if self._num_outputs[chunk.index] == 1:
            self._held[chunk.index] = self._held.get(chunk.index, "") + chunk.text
        if chunk.output is not None:
            self._finished[chunk.index] = chunk.output
        while self._current < len(self._prompts):
            self._continue(self._held.pop(self._current, ""))
            output = self._finished.get(self._current)
            if output is None:
                break
            self._end(output)
            self._current, self._is_begun = self._current + 1, False
        self._file.flush()

    def _continue(self, text: str) -> None:
        if text and not self._is_begun:
            self._file.write(self._prompts[self._current])
            self._is_begun = True
        self._file.write(text)

    def _end(self, output: RequestOutput) -> None:
        if output.error is not None and not self._is_begun:
            return
        if not self._is_begun:
            self._file.write(self._prompts[self._current])
        if len(output.outputs) > 1:
            self._file.writelines(f"\n[{completion.index}] {completion.text}" for completion in output.outputs)
        self._file.write("".join(f"  [{warning}]" for warning in output.warnings) + "\n")


class JsonLinesWriter:
    """One JSON object a prompt, in the order of the prompts; nothing if all of them fail."""

    def __init__(self, file: IO[str], prompts: Sequence[str], first: int) -> None:
        self._file = file
        self._prompts = prompts
        self._next = first
        self._has_success = False
        self._finished: dict[int, RequestOutput] = {}

    def write(self, chunk: TextChunk) -> None:
        if chunk.output is None:
            return
        self._finished[chunk.index] = chunk.output
        self._has_success = self._has_success or chunk.output.error is None
        while self._has_success and self._next in self._finished:
            record = _record(self._next, self._prompts[self._next], self._finished.pop(self._next))
            line = json.dumps(record, ensure_ascii=False)
            # What is no text, in a prompt that was refused, as JSON's escape of it.
            self._file.write(line.encode(errors="backslashreplace").decode() + "\n")
            self._next += 1
        self._file.flush()


def _record(index: int, prompt: str, output: RequestOutput) -> dict[str, Any]:
    """The first output's keys beside the prompt's, and all outputs if there are several."""
    record: dict[str, Any] = {"index": index, "prompt": prompt, "adapter_id": output.adapter_id}
    if output.error is not None:
        return record | {"error": output.error}
    record |= {
        "adapter_digest": output.adapter_digest,
        **_completion(output.outputs[0]),
        "num_prompt_tokens": len(output.prompt_token_ids),
        "num_tokens": len(output.outputs[0].token_ids),
        "warnings": output.warnings,
    }
    if output.prompt_logprobs is not None:
        record["prompt_logprobs"] = [each and _logprobs(each) for each in output.prompt_logprobs]
    if len(output.outputs) > 1:
        record["outputs"] = [{"index": each.index, **_completion(each)} for each in output.outputs]
    return record


def _completion(completion: CompletionOutput) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "text": completion.text,
        "token_ids": completion.token_ids,
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
    }
    if completion.cumulative_logprob is not None:
        fields["cumulative_logprob"] = completion.cumulative_logprob
    if completion.logprobs is not None:
        fields["logprobs"] = [_logprobs(each) for each in completion.logprobs]
    if completion.processed_logprobs is not None:
        fields["processed_logprobs"] = completion.processed_logprobs
    return fields


def _logprobs(logprobs: TokenLogprobs) -> dict[str, dict[str, Any]]:
    """By token id, in vLLM's form; a token that cannot come has null, for JSON has no infinity."""
    return {
        str(token_id): {
            "logprob": float(value) if math.isfinite(value) else None,
            "rank": value.rank,
            "decoded_token": value.decoded_token,
        }
        for token_id, value in logprobs.items()
    }
