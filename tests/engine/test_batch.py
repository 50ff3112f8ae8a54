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
    ordered, batch = build_batch(entries, 4, SlotLayout((16, 8)))
    assert [entry.sequence for entry in ordered] == [prompted, chunk, decode]
    assert batch.step.inputs.tolist() == [200, 201, 202, 3, 4, 5, 6, 7, 8, 105, 50, 51]
    assert batch.step.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7]
    assert batch.step.slot_mapping.tolist() == [32, 33, 34, 39, 12, 13, 14, 15, 20, 9, 10, 11]
    assert batch.step.block_tables.tolist() == [[8, -1, -1], [9, 3, 5], [7, 2, -1]]
    assert batch.step.context_lens.tolist() == [3, 9, 8]
    assert batch.step.q_seq_lens.tolist() == [3, 6, 3]
    assert batch.step.q_seq_ends.tolist() == [3, 9, 12]
    assert batch.step.output_rows.tolist() == [2, 9, 10, 11]
    # The first level of ranks concerns both slots, the second the first one.
    assert [ends.tolist() for ends in batch.segment_ends] == [[3, 9], [3]]
    assert all(array.dtype == np.int32 for array in batch.step)


def test_batch_of_decodes_has_no_segments_without_adapters():
    sequences = [make_sequence(i, list(range(3 + i)), 5) for i in range(2)]
    for i, sequence in enumerate(sequences):
        sequence.block_table, sequence.num_computed_tokens = [4 * i], 2 + i
    _, batch = build_batch([ScheduledSequence(sequence, 1, 1) for sequence in sequences], 4, SlotLayout(()))
    assert batch.segment_ends == []
    assert batch.step.positions.tolist() == [2, 3] and batch.step.slot_mapping.tolist() == [2, 19]
    assert batch.step.output_rows.tolist() == [0, 1]


def test_parts_of_a_batch_are_batches_of_their_own():
    layout = SlotLayout((16, 8))
    entries = []
    for i in range(9):
        sequence = make_sequence(i, list(range(10 * i, 10 * i + 6 + i % 2)), 5, slot=i % 3)
        sequence.block_table, sequence.num_computed_tokens = [i, 20 + i], 5
        entries.append(ScheduledSequence(sequence, len(sequence.token_ids) - 5, i % 2))
    ordered, whole = build_batch(entries, 4, layout)
    for num_parts in (2, 3):
        parts, order = split_batch(whole, num_parts)
        assert order is None
        _check_parts(parts, ordered, num_parts, layout)


def test_decodes_are_dealt_out_to_parts():
    layout = SlotLayout((16, 8))
    entries = []
    for i in range(11):
        sequence = make_sequence(i, list(range(10 * i, 10 * i + 6)), 5, slot=(None, 0, 1)[i % 3])
        sequence.block_table, sequence.num_computed_tokens = [i, 20 + i], 5
        entries.append(ScheduledSequence(sequence, 1, 1))
    for some in (entries, entries[::3]):
        ordered, whole = build_batch(some, 4, layout)
        for num_parts in (2, 3):
            parts, order = split_batch(whole, num_parts)
            assert sorted(order) == list(range(len(some)))
            _check_parts(parts, [ordered[place] for place in order], num_parts, layout)
            assert sorted(part.slots.count(0) for part in parts)[-1] <= -(-whole.slots.count(0) // num_parts)


def _check_parts(parts, entries, num_parts, layout):
    """Each is the batch of its share of the entries."""
    assert len(parts) == num_parts and sum(len(part.slots) for part in parts) == len(entries)
    for part in parts:
        own, entries = entries[: len(part.slots)], entries[len(part.slots) :]
        ordered, alone = build_batch(own, 4, layout)
        assert ordered == own and part.slots == alone.slots
        for name, array in part.step._asdict().items():
            if name != "output_rows":
                np.testing.assert_array_equal(array, getattr(alone.step, name))
        rows = [int(end) - 1 for end, entry in zip(alone.step.q_seq_ends, own, strict=True) if entry.num_logits]
        assert part.step.output_rows.tolist() == rows
        if alone.segment_ends:  # a part of the base model's rows has segments without rows
            for ends, expected in zip(part.segment_ends, alone.segment_ends, strict=True):
                np.testing.assert_array_equal(ends, expected)
        else:
            assert not any(ends.any() for ends in part.segment_ends)


def test_a_batch_with_one_long_sequence_stays_whole():
    prompt, decode = make_sequence(0, list(range(30)), 5), make_sequence(1, list(range(6)), 5)
    prompt.block_table, decode.block_table, decode.num_computed_tokens = list(range(8)), [8, 9], 5
    _, batch = build_batch([ScheduledSequence(prompt, 30, 1), ScheduledSequence(decode, 1, 1)], 4, SlotLayout(()))
    assert split_batch(batch, 2) == ([batch], None)
