"""Which worker has which parts, with random ends of parts and of workers."""

import random

from mindgen.batch.part_schedule import PartSchedule


def test_each_part_is_answered_once_whoever_is_lost():
    choices = random.Random(0)
    schedule = PartSchedule(range(200))
    held: dict[int, list[int]] = {worker: [] for worker in range(8)}
    answered, lost = [], 0
    while not schedule.is_finished:
        worker = choices.choice(list(held))
        while (part := schedule.take(worker)) is not None:
            held[worker].append(part)
        assert len(held[worker]) <= 2
        if held[worker] and choices.random() < 0.1:
            assert schedule.note_lost(worker) == sorted(held.pop(worker))
            lost += 1
            held[100 + lost] = []
        elif held[worker]:
            part = held[worker].pop(0)
            schedule.note_answered(worker, part)
            answered.append(part)
    assert lost > 5 and sorted(answered) == list(range(200))


def test_parts_of_a_lost_worker_come_first_and_the_last_ones_go_one_to_each():
    schedule = PartSchedule(range(6))
    assert [schedule.take("a"), schedule.take("a"), schedule.take("a")] == [0, 1, None]
    assert [schedule.take("b"), schedule.take("b")] == [2, 3]
    assert schedule.note_lost("a") == [0, 1]
    assert schedule.num_pending == 4
    assert [schedule.take("c"), schedule.take("c")] == [0, 1]
    assert [schedule.take("d"), schedule.take("d"), schedule.num_pending] == [4, None, 1]
