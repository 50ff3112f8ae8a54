"""The engine's steps without a network: scheduler and block manager over a cache that is imitated by a list."""

import random
from dataclasses import dataclass, field

import numpy as np

from mindgen.engine.block_manager import BlockManager
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.schedule import Schedule, ScheduledSequence
from mindgen.engine.scheduler import Scheduler
from mindgen.engine.sequence import Sequence
from mindgen.engine.swap_space import SwapSpace
from mindgen.runner.block_store import BlockStore

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
        self.swap_space.forget_unwanted()
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
