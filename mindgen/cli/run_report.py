"""What a run says on standard error: its memory plan, what went wrong, its figures."""

import sys
import time
import traceback

from mindgen.engine.memory_plan import MemoryPlan
from mindgen.outputs import RequestOutput, TextChunk


class RunReport:
    """Counts tokens and times; all times are of time.perf_counter().

    Args:
        debug: show the traceback of each failure.

    Attributes:
        imported, loaded: when MindSpore was imported and the model loaded.
        exit_code: of the first prompt that failed; 0 if none did.
    """

    def __init__(self, started: float, debug: bool) -> None:
        self.started = started
        self.imported = started
        self.loaded = started
        self.exit_code = 0
        self._debug = debug
        self._first_token: float | None = None
        self._outputs: list[RequestOutput] = []

    def begin(self, memory_plan: MemoryPlan) -> None:
        """The model is loaded."""
        self.loaded = time.perf_counter()
        print(memory_plan, file=sys.stderr)

    def add(self, chunk: TextChunk) -> None:
        output = chunk.output
        if output is not None and output.exception is not None:
            self._add_failure(chunk.index, output)
            return
        if self._first_token is None:
            self._first_token = time.perf_counter()
        if output is not None:
            self._outputs.append(output)
            for warning in output.warnings:
                print(f"mindgen: warning: prompt {chunk.index}: {warning}", file=sys.stderr)

    def _add_failure(self, index: int, output: RequestOutput) -> None:
        assert output.exception is not None
        if self._debug:
            traceback.print_exception(output.exception)
        print(f"mindgen: error: prompt {index}: {output.error}", file=sys.stderr)
        self.exit_code = self.exit_code or output.exception.exit_code

    def print(self) -> None:
        """The figures, in two lines."""
        if self._first_token is None:
            return
        num_prompt_tokens = sum(len(output.prompt_token_ids) for output in self._outputs)
        completions = [completion for output in self._outputs for completion in output.outputs]
        num_tokens = sum(len(completion.token_ids) for completion in completions)
        num_later, seconds = num_tokens - len(completions), time.perf_counter() - self._first_token
        print(
            f"{len(self._outputs)} prompt(s), {num_prompt_tokens} tokens; {num_tokens} tokens generated, "
            f"{num_later / seconds:.1f} tokens/s after the first\n"
            f"time to first token {self._first_token - self.started:.2f} s: importing "
            f"{self.imported - self.started:.2f} s, loading {self.loaded - self.imported:.2f} s, "
            f"compiling and prompt {self._first_token - self.loaded:.2f} s",
            file=sys.stderr,
        )
