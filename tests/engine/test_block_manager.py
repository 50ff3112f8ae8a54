"""Blocks that sequences share: device-free, every step checked against an imitated cache."""

import pytest
from sequences import make_sequence
from simulated_steps import BLOCK_SIZE, Machine, config, prompt

from mindgen.engine.block_manager import BlockManager
from mindgen.sampling_params import SamplingParams


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


def test_integrity_check_sees_a_lost_block():
    manager = BlockManager(4, BLOCK_SIZE)
    sequence = make_sequence(0, [1, 2, 3, 4], 4)
    manager.grow(sequence, 8)
    manager.check_integrity([sequence])
    with pytest.raises(AssertionError, match="lost"):
        manager.check_integrity([])
