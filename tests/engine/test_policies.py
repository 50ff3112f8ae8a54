"""Scheduler and block manager: device-free, checked after every step against a cache that is imitated by a list."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequences import make_sequence

from mindgen.engine.block_manager import BlockManager
from mindgen.engine.config import EngineConfig
from mindgen.engine.schedule import Schedule, ScheduledSequence
from mindgen.engine.scheduler import Scheduler
from mindgen.engine.sequence import Request, Sequence
from mindgen.engine.swap_space import BlockStore, SwapSpace
from mindgen.errors import QueueFullError
from mindgen.sampling_params import SamplingParams

BLOCK_SIZE = 4


@dataclass
class Machine:
    """A scheduler with everything below it but the network: the cache remembers which token was written where."""

    config: EngineConfig
    num_blocks: int
    num_swap_blocks: int = 0
    draft: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.blocks = BlockManager(self.num_blocks, BLOCK_SIZE, self.config.enable_prefix_caching)
        self.scheduler = Scheduler(self.config, self.blocks, self.num_swap_blocks, lambda _, room: self.draft[:room])
        self.cache = np.full((self.num_blocks, BLOCK_SIZE, 2), -1)  # of each slot the token and its adapter
        self.swap_space = SwapSpace(BlockStore([self.cache]))
        self.num_preempted = 0

    def add(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self.scheduler.add(sequence.request)

    def step(self, choose=lambda sequence: 7) -> Schedule:
        """A step with tokens from `choose`; every sequence must read back exactly its own tokens."""
        schedule = self.scheduler.schedule()
        self.num_preempted += len(schedule.swapped_out)
        self._check_budgets(schedule)
        self.swap_space.move(schedule)
        self.swap_space.forget_finished()
        for source, target in schedule.copies:
            self.cache[target] = self.cache[source]
        for entry in schedule.entries:
            self._write(entry)
        for entry in schedule.entries:
            self._advance(entry, choose)
        self.scheduler.check_integrity()
        self.swap_space.check_integrity(self.scheduler.unfinished())
        return schedule

    def _check_budgets(self, schedule: Schedule) -> None:
        assert len(schedule.entries) <= self.config.max_num_seqs
        assert schedule.num_tokens <= self.config.max_num_batched_tokens
        for sequence, num_tokens, _, draft in schedule.entries:
            assert 0 < num_tokens - len(draft) <= sequence.num_uncomputed_tokens
            assert len(sequence.block_table) * BLOCK_SIZE >= sequence.num_computed_tokens + num_tokens

    def _write(self, entry: ScheduledSequence) -> None:
        sequence = entry.sequence
        tokens = [*sequence.token_ids, *entry.draft_token_ids]
        for position in range(sequence.num_computed_tokens, sequence.num_computed_tokens + entry.num_tokens):
            block = sequence.block_table[position // BLOCK_SIZE]
            assert self.blocks._users[block] == 1, "writes to a block that others read"
            self.cache[block, position % BLOCK_SIZE] = tokens[position], slot_of(sequence)

    def _advance(self, entry: ScheduledSequence, choose) -> None:
        sequence = entry.sequence
        sequence.num_computed_tokens += entry.num_tokens - len(entry.draft_token_ids)
        read = [
            self.cache[sequence.block_table[i // BLOCK_SIZE], i % BLOCK_SIZE]
            for i in range(sequence.num_computed_tokens)
        ]
        assert [tuple(each) for each in read] == [
            (token, slot_of(sequence)) for token in sequence.token_ids[: sequence.num_computed_tokens]
        ], "the cache has other tokens, or another adapter's"
        if sequence.num_uncomputed_tokens == 0:
            together = [sequence]
            if len(sequence.token_ids) == sequence.prompt_len and sequence.index == 0:
                for child in sequence.request.sequences[1:]:
                    self.scheduler.fork(sequence, child)
                together = [each for each in sequence.request.sequences if each.block_table]
            for each in together:
                each.token_ids.append(choose(each))
        if sequence.block_table:
            self.blocks.remember(sequence)
        for each in sequence.request.sequences:
            if each.finish_reason is None and len(each.token_ids) >= each.request.max_len:
                each.finish_reason = "length"
                self.scheduler.finish(each)

    def run(self, limit: int = 3000) -> None:
        for _ in range(limit):
            if not self.scheduler.has_unfinished():
                return
            assert self.step().entries, "nothing moves"
        raise AssertionError("does not come to an end")


def slot_of(sequence: Sequence) -> int:
    slot = sequence.request.adapter_slot
    return -1 if slot is None else slot


def config(**limits) -> EngineConfig:
    return EngineConfig(**{"block_size": BLOCK_SIZE, "max_num_seqs": 4, "max_num_batched_tokens": 16, **limits})


def prompt(seed: int, length: int) -> list[int]:
    """Of few different tokens in few different orders, so that prompts begin alike."""
    return [random.Random(f"{seed} {position}").randrange(2) for position in range(length)]


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
    machine.swap_space.forget_finished()
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


def test_a_common_beginning_is_computed_once():
    machine = Machine(config(max_num_batched_tokens=64), 100)
    tokens = prompt(3, 22)
    machine.add(make_sequence(0, tokens, 2))
    machine.run()
    again, longer = make_sequence(1, tokens, 2), make_sequence(2, [*tokens, 5, 6], 2)
    other = make_sequence(3, tokens, 2, slot=1)
    machine.add(again, longer, other)
    # Five full blocks of 4 are known; not to an adapter, whose keys and values are others.
    assert [entry.num_tokens for entry in machine.step().entries] == [2, 4, 22]
    assert [each.request.num_cached_tokens for each in (again, longer, other)] == [20, 20, 0]
    assert again.block_table[:5] == longer.block_table[:5]
    assert not set(again.block_table) & set(other.block_table)


def test_the_last_token_is_computed_even_if_all_are_known():
    machine = Machine(config(), 100)
    machine.add(make_sequence(0, prompt(0, 8), 2))
    machine.run()
    machine.add(make_sequence(1, prompt(0, 8), 2))
    assert [entry.num_tokens for entry in machine.step().entries] == [4]


def test_cached_blocks_are_given_away_when_others_need_them():
    machine = Machine(config(), 6)
    machine.add(make_sequence(0, prompt(0, 12), 2))
    machine.run()
    machine.add(make_sequence(1, prompt(1, 20), 2))
    machine.run()
    again = make_sequence(2, prompt(0, 12), 2)
    machine.add(again)
    machine.step()
    assert again.request.num_cached_tokens < 8


def test_forks_share_blocks_until_they_write():
    machine = Machine(config(), 100)
    lead = make_sequence(0, prompt(0, 10), 6, params=SamplingParams(n=3))
    machine.add(lead)
    machine.step()
    others = lead.request.sequences[1:]
    assert all(each.block_table == lead.block_table for each in others)
    schedule = machine.step()
    assert len(schedule.copies) == 2, "the last one to write has the block for itself"
    tables = [each.block_table for each in lead.request.sequences]
    assert all(table[:2] == tables[0][:2] for table in tables)
    assert len({table[2] for table in tables}) == 3
    machine.run()


def test_more_requests_than_may_wait_are_refused():
    scheduler = Scheduler(config(max_waiting=2), BlockManager(10, BLOCK_SIZE))
    for i in range(2):
        scheduler.add(make_sequence(i, prompt(i, 3), 3).request)
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        scheduler.add(make_sequence(2, prompt(2, 3), 3).request)
    scheduler.schedule()
    assert scheduler.num_waiting == 0
    scheduler.add(make_sequence(3, prompt(3, 3), 3).request)


def test_integrity_check_sees_a_lost_block():
    manager = BlockManager(4, BLOCK_SIZE)
    sequence = make_sequence(0, [1, 2, 3, 4], 4)
    manager.grow(sequence, 8)
    manager.check_integrity([sequence])
    with pytest.raises(AssertionError, match="lost"):
        manager.check_integrity([])
