"""Sequences for tests of the engine's policies, which start no MindSpore."""

from mindgen.engine.sampling_row import SamplingRow, Vocabulary
from mindgen.engine.sequence import Request, Sequence
from mindgen.outputs import RequestMetrics
from mindgen.sampling_params import SamplingParams


def make_sequence(
    request_id: int,
    prompt: list[int],
    max_tokens: int,
    slot: int = 0,
    vocab_size: int = 100_000,
    params: SamplingParams | None = None,
    digest: str | None = None,
) -> Sequence:
    """The first sequence of a request of its own."""
    params = params or SamplingParams()
    request = Request(
        request_id,
        list(prompt),
        params,
        max_len=len(prompt) + max_tokens,
        metrics=RequestMetrics(0.0),
        adapter_slot=slot - 1 if slot else None,
        adapter_digest=digest or (f"adapter {slot}" if slot else None),
        num_unfinished=params.num_sequences,
    )
    rows = [
        SamplingRow(params, prompt, Vocabulary(vocab_size), params.sample_seed(index, 0))
        for index in range(params.num_sequences)
    ]
    request.sequences = [Sequence(request, index, list(prompt), row) for index, row in enumerate(rows)]
    return request.sequences[0]
