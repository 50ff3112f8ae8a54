"""How predictions are written: text that streams, or JSON lines; and the figures of the run."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from mindgen.errors import UsageError
from mindgen.outputs import RequestOutput, TextChunk


class PredictionWriter(Protocol):
    def write(self, prompts: list[str], chunk: TextChunk) -> None: ...


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
def open_output(target: OutputTarget) -> Iterator[PredictionWriter]:
    """The writer for a target.

    Raises:
        UsageError: the file cannot be written.
    """
    writer = JsonLinesWriter if target.is_jsonl else TextWriter
    if target.path is None:
        yield writer(sys.stdout)
        return
    try:
        file = target.path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target.path}: {error.strerror}") from error
    with file:
        yield writer(file)


class TextWriter:
    """Each prompt with its continuation, in the order of the prompts; the first unfinished one streams."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._current = 0
        self._started = False
        self._held: dict[int, str] = {}
        self._finished: dict[int, RequestOutput] = {}

    def write(self, prompts: list[str], chunk: TextChunk) -> None:
        self._held[chunk.index] = self._held.get(chunk.index, "") + chunk.text
        if chunk.output is not None:
            self._finished[chunk.index] = chunk.output
        while self._current < len(prompts):
            if not self._started:
                self._file.write(prompts[self._current])
                self._started = True
            self._file.write(self._held.pop(self._current, ""))
            output = self._finished.get(self._current)
            if output is None:
                break
            self._file.write("".join(f"  [{warning}]" for warning in output.warnings) + "\n")
            self._current, self._started = self._current + 1, False
        self._file.flush()


class JsonLinesWriter:
    """One JSON object a prompt, in the order of the prompts."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._next = 0
        self._finished: dict[int, RequestOutput] = {}

    def write(self, prompts: list[str], chunk: TextChunk) -> None:
        if chunk.output is None:
            return
        self._finished[chunk.index] = chunk.output
        while self._next in self._finished:
            record = _record(self._next, self._finished.pop(self._next))
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._next += 1
        self._file.flush()


def _record(index: int, output: RequestOutput) -> dict[str, object]:
    completion = output.outputs[0]
    return {
        "index": index,
        "prompt": output.prompt,
        "text": completion.text,
        "adapter_id": output.adapter_id,
        "adapter_digest": output.adapter_digest,
        "finish_reason": completion.finish_reason,
        "token_ids": completion.token_ids,
        "num_prompt_tokens": len(output.prompt_token_ids),
        "num_tokens": len(completion.token_ids),
        "warnings": output.warnings,
    }


class RunReport:
    """Counts tokens and times; all times are of time.perf_counter().

    Attributes:
        imported, loaded: when MindSpore was imported and the model loaded.
    """

    def __init__(self, started: float) -> None:
        self.started = started
        self.imported = started
        self.loaded = started
        self._first_token: float | None = None
        self._outputs: list[RequestOutput] = []

    def add(self, chunk: TextChunk) -> None:
        if self._first_token is None:
            self._first_token = time.perf_counter()
        if chunk.output is not None:
            self._outputs.append(chunk.output)
            for warning in chunk.output.warnings:
                print(f"mindgen: warning: prompt {chunk.index}: {warning}", file=sys.stderr)

    def print(self) -> None:
        """The figures, in two lines on standard error."""
        if self._first_token is None:
            return
        num_prompt_tokens = sum(len(output.prompt_token_ids) for output in self._outputs)
        num_tokens = sum(len(output.outputs[0].token_ids) for output in self._outputs)
        num_later, seconds = num_tokens - len(self._outputs), time.perf_counter() - self._first_token
        print(
            f"{len(self._outputs)} prompt(s), {num_prompt_tokens} tokens; {num_tokens} tokens generated, "
            f"{num_later / seconds:.1f} tokens/s after the first\n"
            f"time to first token {self._first_token - self.started:.2f} s: importing "
            f"{self.imported - self.started:.2f} s, loading {self.loaded - self.imported:.2f} s, "
            f"compiling and prompt {self._first_token - self.loaded:.2f} s",
            file=sys.stderr,
        )
