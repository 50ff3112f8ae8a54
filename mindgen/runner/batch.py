"""What the network is given in one step."""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

_MOST_UNEVEN = 1.5  # the largest part of a batch, of an even share


@dataclass(slots=True)
class Batch:
    """One step's inputs, derived afresh from the scheduled sequences; T tokens of B sequences, E adapter slots.

    The sequences lie sorted by adapter slot, so that each adapter's rows are contiguous in every layer without
    any gathering.

    Attributes:
        entries: what the scheduler has of the B sequences, in the order of the logits, which is the batch's until it
            runs in parts.
        input_ids, positions, slot_mapping: (T,) int32.
        block_tables: (B, n) int32, -1 where a sequence has fewer blocks.
        context_lens, q_seq_lens, q_seq_ends: (B,) int32.
        output_rows: (R,) int32, the tokens whose logits are wanted: the last num_logits of each entry.
        slots: of each sequence, in the batch's order; num_slots for the base model.
        segment_ends: of each level of the slots (E,) int64, cumulative token counts; none when all rows are the base
            model's, whose rows are the last.
    """

    entries: list[Any]
    input_ids: np.ndarray
    positions: np.ndarray
    slot_mapping: np.ndarray
    block_tables: np.ndarray
    context_lens: np.ndarray
    q_seq_lens: np.ndarray
    q_seq_ends: np.ndarray
    output_rows: np.ndarray
    slots: list[int]
    segment_ends: list[np.ndarray]


def has_whole_prompts_only(batch: Batch) -> bool:
    """Whether nothing in the batch goes on from what an earlier step has computed."""
    return bool((batch.context_lens == batch.q_seq_lens).all())


def split_batch(batch: Batch, num_parts: int) -> list[Batch]:
    """The batch's sequences in parts of about the same number of tokens, each sorted, or whole if it cannot be."""
    num_tokens = len(batch.input_ids)
    if num_tokens == len(batch.entries) == len(batch.output_rows):
        return [_dealt_part(batch, first, num_parts) for first in range(num_parts)]
    ends, output_rows = batch.q_seq_ends.tolist(), batch.output_rows.tolist()
    shares = (num_tokens * i // num_parts for i in range(1, num_parts))
    sequences = [0, *(bisect_left(ends, share) + 1 for share in shares), len(ends)]
    tokens = [0, *(ends[place - 1] for place in sequences[1:])]
    sizes = [end - start for start, end in pairwise(tokens)]
    if min(sizes) == 0 or max(sizes) * num_parts > _MOST_UNEVEN * num_tokens:
        return [batch]
    rows = [bisect_left(output_rows, token) for token in tokens]
    bounds = [*zip(pairwise(sequences), pairwise(tokens), pairwise(rows), strict=True)]
    return [_part(batch, *(slice(*pair) for pair in part)) for part in bounds]


def _dealt_part(batch: Batch, first: int, num_parts: int) -> Batch:
    """Of decoding sequences, a token and an output row each, every num_parts-th: each adapter's rows are shared out."""
    dealt = slice(first, None, num_parts)
    entries = batch.entries[dealt]
    return Batch(
        entries=entries,
        input_ids=np.ascontiguousarray(batch.input_ids[dealt]),
        positions=np.ascontiguousarray(batch.positions[dealt]),
        slot_mapping=np.ascontiguousarray(batch.slot_mapping[dealt]),
        block_tables=np.ascontiguousarray(batch.block_tables[dealt]),
        context_lens=np.ascontiguousarray(batch.context_lens[dealt]),
        q_seq_lens=batch.q_seq_lens[: len(entries)],
        q_seq_ends=batch.q_seq_ends[: len(entries)],
        output_rows=batch.output_rows[: len(entries)],
        slots=batch.slots[dealt],
        segment_ends=[(ends + (num_parts - 1 - first)) // num_parts for ends in batch.segment_ends],
    )


def _part(batch: Batch, sequences: slice, tokens: slice, rows: slice) -> Batch:
    first = np.int32(tokens.start)
    segment_ends = []
    if batch.segment_ends:
        ends = (batch.segment_ends[0] - tokens.start).clip(0, tokens.stop - tokens.start)
        segment_ends = [ends[: len(level)] for level in batch.segment_ends]  # of the first slots
    return Batch(
        entries=batch.entries[sequences],
        input_ids=batch.input_ids[tokens],
        positions=batch.positions[tokens],
        slot_mapping=batch.slot_mapping[tokens],
        block_tables=batch.block_tables[sequences],
        context_lens=batch.context_lens[sequences],
        q_seq_lens=batch.q_seq_lens[sequences],
        q_seq_ends=batch.q_seq_ends[sequences] - first,
        output_rows=batch.output_rows[rows] - first,
        slots=batch.slots[sequences],
        segment_ends=segment_ends,
    )
