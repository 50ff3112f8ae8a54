"""What one HTTP request has the engine do, from its admission to its end."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from mindgen.loop.request_reader import CheckedRequest, read_request
from mindgen.loop.stream import ChunkStream
from mindgen.outputs import RequestOutput, TextChunk
from mindgen.sampling_params import SamplingParams
from mindgen.server.errors import ApiError
from mindgen.server.generation.prompts import TokenizedPrompt
from mindgen.server.observe.call_record import CallRecord


@dataclass(frozen=True, slots=True)
class Order:
    """
    Attributes:
        params: of each prompt.
        is_streamed: somebody waits for the text as it comes.
    """

    prompts: Sequence[TokenizedPrompt]
    params: Sequence[SamplingParams]
    adapter_id: str | None
    is_streamed: bool

    @property
    def num_outputs(self) -> int:
        """That are computed."""
        return sum(each.num_sequences for each in self.params)

    def requests(self) -> list[CheckedRequest]:
        """Raises MindgenError where one is refused already, as for a schema that is none."""
        requests = [
            read_request({"prompt": prompt.text, "prompt_token_ids": prompt.token_ids}, params, self.adapter_id)
            for prompt, params in zip(self.prompts, self.params, strict=True)
        ]
        for request in requests:
            if request.error is not None:
                raise request.error
        return requests


class Call:
    """Its chunks can be read once, all together or one by one.

    Args:
        record: notes what comes.
        release: gives back what the call has; called once.
    """

    def __init__(self, stream: ChunkStream, record: CallRecord, release: Callable[[], None]) -> None:
        self._stream, self._record, self._release = stream, record, release
        self._is_open = True

    async def chunks(self) -> AsyncGenerator[TextChunk, None]:
        """Raises MindgenError or ApiError for what ends a request: one that fails ends the call."""
        try:
            async with aclosing(self._stream.__aiter__()) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    self._record.note(chunk)
                    if chunk.output is not None:
                        _raise_failure(chunk.output)
                    yield chunk
        finally:
            self.close()

    async def outputs(self) -> list[RequestOutput]:
        """Of all prompts, in their order."""
        finished = {}
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                if chunk.output is not None:
                    finished[chunk.index] = chunk.output
        return [finished[index] for index in sorted(finished)]

    def close(self) -> None:
        """Calls off what has not ended."""
        self._stream.close()
        if self._is_open:
            self._is_open = False
            self._record.end()
            self._release()


def _raise_failure(output: RequestOutput) -> None:
    if output.exception is not None:
        raise output.exception
    if any(each.stop_reason == "deadline" for each in output.outputs):
        message = "the request took longer than the server's request_timeout: ask for less, or try again later"
        raise ApiError(503, "server_error", message, code="timeout", headers={"Retry-After": "1"})
