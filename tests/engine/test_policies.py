"""Scheduler, block manager and batch: device-free, checked after every step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.engine.batch import build_batch
from mindgen.engine.block_manager import BlockManager
from mindgen.engine.config import EngineConfig
from mindgen.engine.sampling_row import SamplingRow
from mindgen.engine.scheduler import ScheduledSequence, Scheduler
from mindgen.engine.sequence import Sequence
from mindgen.errors import ConfigError
from mindgen.outputs import RequestMetrics
from mindgen.sampling_params import SamplingParams

BLOCK_SIZE = 4


def make_sequence(request_id: int, prompt_len: int, max_tokens: int, slot: int = 0) -> Sequence:
    return Sequence(
        request_id=request_id,
        token_ids=list(range(100 * request_id, 100 * request_id + prompt_len)),
        params=SamplingParams(),
        max_len=prompt_len + max_tokens,
        sampling_row=SamplingRow(SamplingParams(), [], vocab_size=1, seed=0),
        metrics=RequestMetrics(0.0),
        adapter_slot=slot,
    )


def advance(scheduler: Scheduler, scheduled: list[ScheduledSequence]) -> None:
    """What the engine does after a step, with a token that means nothing."""
    for sequence, num_tokens in scheduled:
        sequence.num_computed_tokens += num_tokens
        if sequence.num_uncomputed_tokens == 0:
            sequence.token_ids.append(7)
            if len(sequence.token_ids) >= sequence.max_len:
                sequence.finish_reason = "length"
                scheduler.finish(sequence)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=12),
    max_num_seqs=st.integers(1, 5),
    budget=st.integers(5, 24),
    num_blocks=st.integers(11, 40),
)
def test_everything_finishes_within_the_budgets(lengths, max_num_seqs, budget, num_blocks):
    config = EngineConfig(block_size=BLOCK_SIZE, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)
    scheduler = Scheduler(config, BlockManager(num_blocks, BLOCK_SIZE))
    sequences = [make_sequence(index, *length) for index, length in enumerate(lengths)]
    for sequence in sequences:
        scheduler.add(sequence)
    started: list[int] = []
    for _ in range(1000):
        if not scheduler.has_unfinished():
            break
        scheduled = scheduler.schedule()
        assert scheduled and len(scheduled) <= max_num_seqs
        assert sum(entry.num_tokens for entry in scheduled) <= budget
        assert all(0 < entry.num_tokens <= entry.sequence.num_uncomputed_tokens for entry in scheduled)
        started += [entry.sequence.request_id for entry in scheduled if entry.sequence.request_id not in started]
        advance(scheduler, scheduled)
        scheduler.check_integrity()
    assert [sequence.finish_reason for sequence in sequences] == ["length"] * len(sequences)
    assert started == sorted(started), "first come, first served"


def test_running_sequences_decode_beside_a_long_prompt():
    config = EngineConfig(block_size=BLOCK_SIZE, max_num_seqs=4, max_num_batched_tokens=8)
    scheduler = Scheduler(config, BlockManager(100, BLOCK_SIZE))
    short, long = make_sequence(0, 3, 10), make_sequence(1, 30, 10)
    scheduler.add(short)
    advance(scheduler, scheduler.schedule())
    scheduler.add(long)
    for _ in range(3):
        scheduled = scheduler.schedule()
        assert [(entry.sequence.request_id, entry.num_tokens) for entry in scheduled] == [(0, 1), (1, 7)]
        advance(scheduler, scheduled)


def test_abort_frees_blocks_wherever_the_sequence_stands():
    scheduler = Scheduler(EngineConfig(block_size=BLOCK_SIZE, max_num_seqs=1), BlockManager(10, BLOCK_SIZE))
    running, waiting = make_sequence(0, 5, 5), make_sequence(1, 5, 5)
    scheduler.add(running)
    scheduler.add(waiting)
    scheduler.schedule()
    for sequence in (waiting, running):
        scheduler.abort(sequence)
        scheduler.check_integrity()
    assert not scheduler.has_unfinished()


def test_integrity_check_sees_a_lost_block():
    manager = BlockManager(4, BLOCK_SIZE)
    sequence = make_sequence(0, 4, 4)
    manager.allocate(sequence)
    manager.check_integrity([sequence])
    with pytest.raises(AssertionError, match="lost"):
        manager.check_integrity([])


def test_batch_of_prompts_chunks_and_decodes_sorted_by_adapter():
    chunk, decode, prompt = (
        make_sequence(0, 10, 5, slot=2),
        make_sequence(1, 6, 5, slot=0),
        make_sequence(2, 3, 5, slot=1),
    )
    chunk.block_table, decode.block_table, prompt.block_table = [9, 3, 5, 1], [7, 2, 0], [8, 6]
    chunk.num_computed_tokens, decode.num_computed_tokens = 3, 5
    batch = build_batch([ScheduledSequence(chunk, 6), ScheduledSequence(decode, 1), ScheduledSequence(prompt, 3)], 4, 4)
    assert batch.order.tolist() == [1, 2, 0]
    assert batch.input_ids.tolist() == [105, 200, 201, 202, 3, 4, 5, 6, 7, 8]
    assert batch.positions.tolist() == [5, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert batch.slot_mapping.tolist() == [9, 32, 33, 34, 39, 12, 13, 14, 15, 20]
    assert batch.block_tables.tolist() == [[7, 2, -1], [8, -1, -1], [9, 3, 5]]
    assert batch.context_lens.tolist() == [6, 3, 9]
    assert batch.q_seq_lens.tolist() == [1, 3, 6]
    assert batch.q_seq_ends.tolist() == [1, 4, 10]
    assert batch.output_rows.tolist() == [0, 3, 9]
    assert batch.segment_ends.tolist() == [1, 4, 10, 10]


def test_batch_without_adapters_has_no_segments():
    prompt = make_sequence(0, 3, 5)
    prompt.block_table = [0, 1]
    batch = build_batch([ScheduledSequence(prompt, 3)], 4, 4)
    assert batch.segment_ends is None


@pytest.mark.parametrize(
    "field", ["block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens", "max_model_len"]
)
def test_configuration_names_the_bad_field(field):
    with pytest.raises(ConfigError, match=f"{field} must be at least 1, not 0"):
        EngineConfig(**{field: 0})
