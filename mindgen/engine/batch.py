"""What the network is given in one step."""

from dataclasses import dataclass

import numpy as np

from mindgen.engine.scheduler import ScheduledSequence


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's inputs, derived afresh from the scheduled sequences; T tokens of B sequences, E adapter slots.

    The sequences lie sorted by adapter slot, so that each adapter's rows are contiguous in every layer without
    any gathering; `order` maps them back.

    Attributes:
        input_ids, positions, slot_mapping: (T,) int32.
        block_tables: (B, n) int32, -1 where a sequence has fewer blocks.
        context_lens, q_seq_lens, q_seq_ends: (B,) int32.
        output_rows: (B,) int32, each sequence's last token.
        segment_ends: (E,) int64, cumulative token counts of the slots; None when all rows are the base model's.
        order: (B,) the place of each of the batch's sequences in the list of scheduled ones.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    slot_mapping: np.ndarray
    block_tables: np.ndarray
    context_lens: np.ndarray
    q_seq_lens: np.ndarray
    q_seq_ends: np.ndarray
    output_rows: np.ndarray
    segment_ends: np.ndarray | None
    order: np.ndarray


def build_batch(scheduled: list[ScheduledSequence], block_size: int, num_slots: int) -> Batch:
    """The batch of a non-empty list of scheduled sequences."""
    order = np.argsort([entry.sequence.adapter_slot for entry in scheduled], kind="stable")
    entries = [scheduled[place] for place in order]
    starts = np.array([entry.sequence.num_computed_tokens for entry in entries], np.int32)
    q_seq_lens = np.array([entry.num_tokens for entry in entries], np.int32)
    positions = np.concatenate(
        [np.arange(start, start + count, dtype=np.int32) for start, count in zip(starts, q_seq_lens, strict=True)]
    )
    tables = _block_tables(entries, block_size)
    owner = np.repeat(np.arange(len(entries)), q_seq_lens)  # (T,) the sequence of each token
    blocks = tables[owner, positions // block_size]
    q_seq_ends = np.cumsum(q_seq_lens, dtype=np.int32)
    return Batch(
        input_ids=np.concatenate([_next_tokens(entry) for entry in entries]),
        positions=positions,
        slot_mapping=(blocks * block_size + positions % block_size).astype(np.int32),
        block_tables=tables,
        context_lens=starts + q_seq_lens,
        q_seq_lens=q_seq_lens,
        q_seq_ends=q_seq_ends,
        output_rows=q_seq_ends - np.int32(1),
        segment_ends=_segment_ends(entries, num_slots),
        order=order,
    )


def _next_tokens(entry: ScheduledSequence) -> np.ndarray:
    start = entry.sequence.num_computed_tokens
    return np.array(entry.sequence.token_ids[start : start + entry.num_tokens], np.int32)


def _block_tables(entries: list[ScheduledSequence], block_size: int) -> np.ndarray:
    used = [-(-(entry.sequence.num_computed_tokens + entry.num_tokens) // block_size) for entry in entries]
    tables = np.full((len(entries), max(used)), -1, np.int32)
    for row, entry, count in zip(tables, entries, used, strict=True):
        row[:count] = entry.sequence.block_table[:count]
    return tables


def _segment_ends(entries: list[ScheduledSequence], num_slots: int) -> np.ndarray | None:
    slots = [entry.sequence.adapter_slot for entry in entries]
    if not any(slots):
        return None
    counts = np.bincount(slots, [entry.num_tokens for entry in entries], num_slots)
    return np.cumsum(counts).astype(np.int64)
