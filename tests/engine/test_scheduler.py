"""Who computes when: device-free, every step checked against an imitated cache."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequences import make_sequence
from simulated_steps import BLOCK_SIZE, Machine, config, prompt

from mindgen.engine.block_manager import BlockManager
from mindgen.engine.scheduler import Scheduler
from mindgen.engine.sequence import Request
from mindgen.errors import QueueFullError
from mindgen.sampling_params import SamplingParams

REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which prompt
        st.integers(1, 30),  # its length
        st.integers(1, 12),  # max_tokens
        st.integers(0, 2),  # adapter
        st.integers(1, 3),  # n
        st.integers(-1, 1),  # priority
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(
    requests=REQUESTS,
    max_num_seqs=st.integers(1, 5),
    budget=st.integers(5, 50),
    num_blocks=st.integers(11, 40),
    num_swap_blocks=st.sampled_from([0, 0, 3, 50]),
    caching=st.booleans(),
    draft=st.integers(0, 3),
    aborted=st.sets(st.integers(0, 11), max_size=3),
)
def test_everything_ends_within_the_budgets(
    requests, max_num_seqs, budget, num_blocks, num_swap_blocks, caching, draft, aborted
):
    limits = config(max_num_seqs=max_num_seqs, max_num_batched_tokens=budget, enable_prefix_caching=caching)
    machine = Machine(limits, num_blocks, num_swap_blocks, [7] * draft)
    sequences = [
        make_sequence(i, prompt(kind, length), max_tokens, slot, params=SamplingParams(n=n, priority=priority))
        for i, (kind, length, max_tokens, slot, n, priority) in enumerate(requests)
    ]
    for i, sequence in enumerate(sequences):
        machine.add(sequence)
        machine.step()
        if i in aborted:
            abort(machine.scheduler, sequence.request)
            machine.scheduler.check_integrity()
    machine.run()
    for sequence in sequences:
        assert all(each.finish_reason in ("length", "abort") for each in sequence.request.sequences)
    assert machine.blocks.num_free == num_blocks
    machine.swap_space.forget_unwanted()
    assert not machine.swap_space._kept


def abort(scheduler: Scheduler, request: Request) -> None:
    for sequence in request.sequences:
        is_known = any(sequence is each for each in scheduler.unfinished())
        if sequence.finish_reason is None:
            sequence.finish_reason = "abort"
            if is_known:
                scheduler.finish(sequence)


def test_first_come_first_served():
    machine = Machine(config(max_num_seqs=2), 40)
    sequences = [make_sequence(i, prompt(i, 5), 3) for i in range(6)]
    machine.add(*sequences)
    started: list[int] = []
    while machine.scheduler.has_unfinished():
        for entry in machine.step().entries:
            if entry.sequence.request.request_id not in started:
                started.append(entry.sequence.request.request_id)
    assert started == list(range(6))


def test_priorities_overtake_but_starve_nobody():
    """A request of the lowest value goes first; yet 256 levels of later requests cannot hold another up."""
    machine = Machine(config(max_num_seqs=1), 400)
    patient = make_sequence(0, prompt(0, 3), 1, params=SamplingParams(priority=1))
    urgent = [make_sequence(i, prompt(1, 3), 1, params=SamplingParams(priority=0)) for i in range(1, 400)]
    machine.add(patient, *urgent)
    order = []
    while machine.scheduler.has_unfinished():
        order += [entry.sequence.request.request_id for entry in machine.step().entries]
    assert order[0] == 1
    assert order.index(0) == 255


def test_running_sequences_decode_beside_a_long_prompt():
    machine = Machine(config(max_num_batched_tokens=8), 100)
    short, long = make_sequence(0, prompt(0, 3), 10), make_sequence(1, prompt(1, 30), 10)
    machine.add(short)
    machine.step()
    machine.add(long)
    for _ in range(3):
        scheduled = machine.step().entries
        assert [(entry.sequence, entry.num_tokens) for entry in scheduled] == [(short, 1), (long, 7)]


def test_without_chunks_a_prompt_waits_for_a_step_that_holds_it():
    machine = Machine(config(max_num_batched_tokens=32, enable_chunked_prefill=False), 100)
    machine.add(make_sequence(0, prompt(0, 20), 3), make_sequence(1, prompt(1, 20), 3))
    steps = [[entry.num_tokens for entry in machine.step().entries] for _ in range(3)]
    assert steps == [[20], [1, 20], [1, 1]]


@pytest.mark.parametrize("num_swap_blocks", [0, 100])
def test_the_last_that_came_gives_its_blocks_back(num_swap_blocks):
    machine = Machine(config(enable_prefix_caching=False), 6, num_swap_blocks)
    first, second = make_sequence(0, prompt(0, 7), 12), make_sequence(1, prompt(1, 7), 12)
    machine.add(first, second)
    while first.finish_reason is None:
        machine.step()
    assert second in list(machine.scheduler.unfinished()) and not second.block_table
    assert second.output_token_ids, "it ran before it had to wait"
    assert (second.swapped_blocks > 0) == (num_swap_blocks > 0)
    machine.run()
    assert machine.num_preempted == (1 if num_swap_blocks else 0)


def test_more_requests_than_may_wait_are_refused():
    scheduler = Scheduler(config(max_waiting=2), BlockManager(10, BLOCK_SIZE))
    for i in range(2):
        scheduler.add(make_sequence(i, prompt(i, 3), 3).request)
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        scheduler.add(make_sequence(2, prompt(2, 3), 3).request)
    scheduler.schedule()
    assert scheduler.num_waiting == 0
    scheduler.add(make_sequence(3, prompt(3, 3), 3).request)
