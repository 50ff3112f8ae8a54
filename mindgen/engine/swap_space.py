"""Host memory for the KV blocks of sequences that had to give their place up."""

from collections.abc import Iterable
from itertools import count

from mindgen.engine.schedule import Schedule
from mindgen.engine.sequence import Sequence
from mindgen.runner.spec import Runner


class SwapSpace:
    """The blocks of waiting sequences; how many there may be is the scheduler's business."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._keys = count()
        self._kept: dict[Sequence, tuple[int, int]] = {}  # key, number of blocks

    def move(self, schedule: Schedule) -> None:
        """Blocks out and in, as a step wants it."""
        for sequence, blocks in schedule.swapped_out:
            key = next(self._keys)
            self._runner.keep_blocks(key, blocks)
            self._kept[sequence] = key, len(blocks)
        for sequence in schedule.swapped_in:
            key, num_blocks = self._kept.pop(sequence)
            self._runner.restore_blocks(key, sequence.block_table[:num_blocks])

    def forget_unwanted(self) -> None:
        """Drops the blocks of sequences that have ended while they waited, or are computed anew."""
        for sequence in [each for each in self._kept if each.swapped_blocks == 0]:
            self._runner.drop_blocks(self._kept.pop(sequence)[0])

    def check_integrity(self, unfinished: Iterable[Sequence]) -> None:
        """Raises AssertionError unless every waiting sequence has as many blocks here as it says."""
        for sequence in unfinished:
            _, num_blocks = self._kept.get(sequence, (0, 0))
            assert sequence.swapped_blocks == num_blocks, "swapped blocks are lost"
