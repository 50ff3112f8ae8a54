"""What the network is given, from what is scheduled."""

import numpy as np
from sequences import make_sequence

from mindgen.adapters.slot_layout import SlotLayout
from mindgen.engine.batch import build_batch
from mindgen.engine.schedule import ScheduledSequence
from mindgen.runner.batch import split_batch


def test_batch_of_prompts_chunks_and_decodes_sorted_by_adapter():
    chunk = make_sequence(0, list(range(10)), 5, slot=2)
    decode = make_sequence(1, list(range(100, 106)), 5)
    prompted = make_sequence(2, list(range(200, 203)), 5, slot=1)
    chunk.block_table, decode.block_table, prompted.block_table = [9, 3, 5], [7, 2], [8]
    chunk.num_computed_tokens, decode.num_computed_tokens = 3, 5
    entries = [
        ScheduledSequence(chunk, 6, 0),
        ScheduledSequence(decode, 3, 3, [50, 51]),
        ScheduledSequence(prompted, 3, 1),
    ]
    batch = build_batch(entries, 4, SlotLayout((16, 8)))
    assert [entry.sequence for entry in batch.entries] == [prompted, chunk, decode]
    assert batch.input_ids.tolist() == [200, 201, 202, 3, 4, 5, 6, 7, 8, 105, 50, 51]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7]
    assert batch.slot_mapping.tolist() == [32, 33, 34, 39, 12, 13, 14, 15, 20, 9, 10, 11]
    assert batch.block_tables.tolist() == [[8, -1, -1], [9, 3, 5], [7, 2, -1]]
    assert batch.context_lens.tolist() == [3, 9, 8]
    assert batch.q_seq_lens.tolist() == [3, 6, 3]
    assert batch.q_seq_ends.tolist() == [3, 9, 12]
    assert batch.output_rows.tolist() == [2, 9, 10, 11]
    # The first level of ranks concerns both slots, the second the first one.
    assert [ends.tolist() for ends in batch.segment_ends] == [[3, 9], [3]]
    for name in ("input_ids", "positions", "slot_mapping", "block_tables", "context_lens", "q_seq_lens", "output_rows"):
        assert getattr(batch, name).dtype == np.int32


def test_batch_of_decodes_has_no_segments_without_adapters():
    sequences = [make_sequence(i, list(range(3 + i)), 5) for i in range(2)]
    for i, sequence in enumerate(sequences):
        sequence.block_table, sequence.num_computed_tokens = [4 * i], 2 + i
    batch = build_batch([ScheduledSequence(sequence, 1, 1) for sequence in sequences], 4, SlotLayout(()))
    assert batch.segment_ends == []
    assert batch.positions.tolist() == [2, 3] and batch.slot_mapping.tolist() == [2, 19]
    assert batch.output_rows.tolist() == [0, 1]


def test_parts_of_a_batch_are_batches_of_their_own():
    layout = SlotLayout((16, 8))
    entries = []
    for i in range(9):
        sequence = make_sequence(i, list(range(10 * i, 10 * i + 6 + i % 2)), 5, slot=i % 3)
        sequence.block_table, sequence.num_computed_tokens = [i, 20 + i], 5
        entries.append(ScheduledSequence(sequence, len(sequence.token_ids) - 5, i % 2))
    whole = build_batch(entries, 4, layout)
    for num_parts in (2, 3):
        parts = split_batch(whole, num_parts)
        _check_parts(parts, num_parts, layout)
        assert [entry for part in parts for entry in part.entries] == whole.entries


def test_decodes_are_dealt_out_to_parts():
    layout = SlotLayout((16, 8))
    entries = []
    for i in range(11):
        sequence = make_sequence(i, list(range(10 * i, 10 * i + 6)), 5, slot=(None, 0, 1)[i % 3])
        sequence.block_table, sequence.num_computed_tokens = [i, 20 + i], 5
        entries.append(ScheduledSequence(sequence, 1, 1))
    for some in (entries, entries[::3]):
        whole = build_batch(some, 4, layout)
        for num_parts in (2, 3):
            parts = split_batch(whole, num_parts)
            _check_parts(parts, num_parts, layout)
            assert sorted(part.slots.count(0) for part in parts)[-1] <= -(-whole.slots.count(0) // num_parts)
            assert {id(entry) for part in parts for entry in part.entries} == {id(entry) for entry in some}


def _check_parts(parts, num_parts, layout):
    assert len(parts) == num_parts
    for part in parts:
        alone = build_batch(part.entries, 4, layout)
        for name in ("input_ids", "positions", "slot_mapping", "block_tables", "context_lens", "q_seq_lens"):
            np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))
        np.testing.assert_array_equal(part.q_seq_ends, alone.q_seq_ends)
        assert part.slots == alone.slots
        assert part.output_rows.tolist() == [row for row, wanted in _last_rows(alone) if wanted]
        if alone.segment_ends:  # a part of the base model's rows has segments without rows
            for ends, expected in zip(part.segment_ends, alone.segment_ends, strict=True):
                np.testing.assert_array_equal(ends, expected)
        else:
            assert not any(ends.any() for ends in part.segment_ends)


def _last_rows(batch):
    return [(int(end) - 1, entry.num_logits) for end, entry in zip(batch.q_seq_ends, batch.entries, strict=True)]


def test_a_batch_with_one_long_sequence_stays_whole():
    prompt, decode = make_sequence(0, list(range(30)), 5), make_sequence(1, list(range(6)), 5)
    prompt.block_table, decode.block_table, decode.num_computed_tokens = list(range(8)), [8, 9], 5
    batch = build_batch([ScheduledSequence(prompt, 30, 1), ScheduledSequence(decode, 1, 1)], 4, SlotLayout(()))
    assert split_batch(batch, 2) == [batch]
