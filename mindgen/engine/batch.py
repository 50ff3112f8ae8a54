"""What the network is given in one step."""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mindgen.adapters.slot_layout import SlotLayout
from mindgen.engine.schedule import ScheduledSequence

_MOST_UNEVEN = 1.5  # the largest part of a batch, of an even share


@dataclass(slots=True)
class Batch:
    """One step's inputs, derived afresh from the scheduled sequences; T tokens of B sequences, E adapter slots.

    The sequences lie sorted by adapter slot, so that each adapter's rows are contiguous in every layer without
    any gathering.

    Attributes:
        entries: the B scheduled sequences in the order of the logits, which is the batch's until it runs in parts.
        input_ids, positions, slot_mapping: (T,) int32.
        block_tables: (B, n) int32, -1 where a sequence has fewer blocks.
        context_lens, q_seq_lens, q_seq_ends: (B,) int32.
        output_rows: (R,) int32, the tokens whose logits are wanted: the last num_logits of each entry.
        slots: of each sequence, in the batch's order; num_slots for the base model.
        segment_ends: of each level of the slots (E,) int64, cumulative token counts; none when all rows are the base
            model's, whose rows are the last.
    """

    entries: list[ScheduledSequence]
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


def build_batch(entries: list[ScheduledSequence], block_size: int, layout: SlotLayout) -> Batch:
    """The batch of a non-empty list of scheduled sequences."""
    base = layout.num_slots  # after all adapters
    slots = [base if (slot := entry.sequence.request.adapter_slot) is None else slot for entry in entries]
    has_adapters = min(slots) < base
    if has_adapters:
        order = sorted(range(len(entries)), key=slots.__getitem__)
        entries, slots = [entries[place] for place in order], [slots[place] for place in order]
    q_seq_lens = np.array([entry.num_tokens for entry in entries], np.int32)
    context_lens = np.array([entry.sequence.num_computed_tokens + entry.num_tokens for entry in entries], np.int32)
    q_seq_ends = np.cumsum(q_seq_lens, dtype=np.int32)
    num_tokens = int(q_seq_ends[-1])
    tables = _block_tables(entries, context_lens, block_size)
    if num_tokens == len(entries):  # decoding: a token each
        positions, rows = context_lens - 1, np.arange(num_tokens)
    else:
        positions = np.arange(num_tokens, dtype=np.int32) + np.repeat(context_lens - q_seq_ends, q_seq_lens)
        rows = np.repeat(np.arange(len(entries)), q_seq_lens)
    blocks, offsets = np.divmod(positions, np.int32(block_size))
    return Batch(
        entries=entries,
        input_ids=_input_ids(entries),
        positions=positions,
        slot_mapping=tables[rows, blocks] * np.int32(block_size) + offsets,
        block_tables=tables,
        context_lens=context_lens,
        q_seq_lens=q_seq_lens,
        q_seq_ends=q_seq_ends,
        output_rows=_output_rows(entries, q_seq_ends),
        slots=slots,
        segment_ends=_segment_ends(slots, q_seq_lens, layout) if has_adapters else [],
    )


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


def _input_ids(entries: list[ScheduledSequence]) -> np.ndarray:
    token_ids: list[int] = []
    for sequence, num_tokens, _, draft in entries:
        if num_tokens == 1:
            token_ids.append(sequence.token_ids[sequence.num_computed_tokens])
            continue
        start = sequence.num_computed_tokens
        token_ids += sequence.token_ids[start : start + num_tokens - len(draft)]
        token_ids += draft
    return np.array(token_ids, np.int32)


def _block_tables(entries: list[ScheduledSequence], context_lens: np.ndarray, block_size: int) -> np.ndarray:
    """A cache has room for what is scheduled and perhaps more, which the network need not see."""
    num_blocks = -(-int(context_lens.max()) // block_size)
    padding = [-1] * num_blocks
    blocks: list[int] = []
    for entry in entries:
        table = entry.sequence.block_table
        blocks += table if len(table) == num_blocks else (table + padding)[:num_blocks]
    return np.array(blocks, np.int32).reshape(len(entries), num_blocks)


def _output_rows(entries: list[ScheduledSequence], q_seq_ends: np.ndarray) -> np.ndarray:
    counts = [entry.num_logits for entry in entries]
    if counts.count(1) == len(counts):
        return q_seq_ends - np.int32(1)
    pieces = [np.arange(end - count, end, dtype=np.int32) for end, count in zip(q_seq_ends, counts, strict=True)]
    # The network answers one row at least, even if nobody asks.
    return np.concatenate(pieces) if any(counts) else np.zeros(1, np.int32)


def _segment_ends(slots: list[int], q_seq_lens: np.ndarray, layout: SlotLayout) -> list[np.ndarray]:
    """slots: of each sequence, num_slots for the base model."""
    counts = np.bincount(slots, q_seq_lens, layout.num_slots + 1)
    ends = np.cumsum(counts[: layout.num_slots]).astype(np.int64)
    return [ends[: level.num_slots] for level in layout.levels()]
