"""What the network is given in one step, and what it gives."""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mindgen.layers.step_inputs import StepInputs

_MOST_UNEVEN = 1.5  # the largest part of a batch, of an even share


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's inputs, derived afresh from the scheduled sequences; T tokens of B sequences, E adapter slots.

    The sequences lie sorted by adapter slot, so that each adapter's rows are contiguous in every layer without
    any gathering.

    Attributes:
        slots: of each sequence, in the batch's order; num_slots for the base model.
        segment_ends: of each level of the slots (E,) int64, cumulative token counts; none when all rows are the base
            model's, whose rows are the last.
    """

    step: StepInputs[np.ndarray]
    slots: list[int]
    segment_ends: list[np.ndarray]

    @property
    def num_tokens(self) -> int:
        return len(self.step.positions)


class Logits(NamedTuple):
    """What a step gives.

    Attributes:
        values: (R, V) float32, on rank 0; the others have what they have of them, or their hidden states.
        order: the batch's sequences in the order of the rows; None where that is the batch's own.
    """

    values: np.ndarray
    order: list[int] | None = None


def has_whole_prompts_only(step: StepInputs[np.ndarray]) -> bool:
    """Whether nothing in the step goes on from what an earlier one has computed."""
    return bool((step.context_lens == step.q_seq_lens).all())


def split_batch(batch: Batch, num_parts: int) -> tuple[list[Batch], list[int] | None]:
    """The batch's sequences in parts of about the same number of tokens, each sorted, or whole if it cannot be.

    And the order of the sequences in the parts, as in Logits.
    """
    num_tokens, step = batch.num_tokens, batch.step
    if num_tokens == len(batch.slots) == len(step.output_rows):
        order = [place for first in range(num_parts) for place in range(first, num_tokens, num_parts)]
        return [_dealt_part(batch, first, num_parts) for first in range(num_parts)], order
    ends, output_rows = step.q_seq_ends.tolist(), step.output_rows.tolist()
    shares = (num_tokens * i // num_parts for i in range(1, num_parts))
    sequences = [0, *(bisect_left(ends, share) + 1 for share in shares), len(ends)]
    tokens = [0, *(ends[place - 1] for place in sequences[1:])]
    sizes = [end - start for start, end in pairwise(tokens)]
    if min(sizes) == 0 or max(sizes) * num_parts > _MOST_UNEVEN * num_tokens:
        return [batch], None
    rows = [bisect_left(output_rows, token) for token in tokens]
    bounds = [*zip(pairwise(sequences), pairwise(tokens), pairwise(rows), strict=True)]
    return [_part(batch, *(slice(*pair) for pair in part)) for part in bounds], None


def _dealt_part(batch: Batch, first: int, num_parts: int) -> Batch:
    """Of decoding sequences, a token and an output row each, every num_parts-th: each adapter's rows are shared out."""
    step, dealt = batch.step, slice(first, None, num_parts)
    slots = batch.slots[dealt]
    return Batch(
        StepInputs(
            inputs=np.ascontiguousarray(step.inputs[dealt]),
            context_lens=np.ascontiguousarray(step.context_lens[dealt]),
            q_seq_lens=step.q_seq_lens[: len(slots)],
            q_seq_ends=step.q_seq_ends[: len(slots)],
            positions=np.ascontiguousarray(step.positions[dealt]),
            slot_mapping=np.ascontiguousarray(step.slot_mapping[dealt]),
            block_tables=np.ascontiguousarray(step.block_tables[dealt]),
            output_rows=step.output_rows[: len(slots)],
        ),
        slots,
        [(ends + (num_parts - 1 - first)) // num_parts for ends in batch.segment_ends],
    )


def _part(batch: Batch, sequences: slice, tokens: slice, rows: slice) -> Batch:
    step, first = batch.step, np.int32(tokens.start)
    segment_ends = []
    if batch.segment_ends:
        ends = (batch.segment_ends[0] - tokens.start).clip(0, tokens.stop - tokens.start)
        segment_ends = [ends[: len(level)] for level in batch.segment_ends]  # of the first slots
    return Batch(
        StepInputs(
            inputs=step.inputs[tokens],
            context_lens=step.context_lens[sequences],
            q_seq_lens=step.q_seq_lens[sequences],
            q_seq_ends=step.q_seq_ends[sequences] - first,
            positions=step.positions[tokens],
            slot_mapping=step.slot_mapping[tokens],
            block_tables=step.block_tables[sequences],
            output_rows=step.output_rows[rows] - first,
        ),
        batch.slots[sequences],
        segment_ends,
    )
