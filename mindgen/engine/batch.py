"""Makes the network's inputs of what the scheduler picked."""

import numpy as np

from mindgen.adapters.slot_layout import SlotLayout
from mindgen.engine.schedule import ScheduledSequence
from mindgen.layers.step_inputs import StepInputs
from mindgen.runner.batch import Batch


def build_batch(
    entries: list[ScheduledSequence], block_size: int, layout: SlotLayout
) -> tuple[list[ScheduledSequence], Batch]:
    """The batch of a non-empty list of scheduled sequences, and these in its order."""
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
    step = StepInputs(
        inputs=_input_ids(entries),
        context_lens=context_lens,
        q_seq_lens=q_seq_lens,
        q_seq_ends=q_seq_ends,
        positions=positions,
        slot_mapping=tables[rows, blocks] * np.int32(block_size) + offsets,
        block_tables=tables,
        output_rows=_output_rows(entries, q_seq_ends),
    )
    return entries, Batch(step, slots, _segment_ends(slots, q_seq_lens, layout) if has_adapters else [])


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
