"""Which sequences run in the next step, and with how many tokens each."""

from collections import deque
from typing import NamedTuple

from mindgen.engine.block_manager import BlockManager
from mindgen.engine.config import EngineConfig
from mindgen.engine.sequence import Sequence


class ScheduledSequence(NamedTuple):
    """A sequence with the number of its next tokens to compute."""

    sequence: Sequence
    num_tokens: int


class Scheduler:
    """First come, first served: running sequences first, then waiting ones while tokens, places and blocks last."""

    def __init__(self, config: EngineConfig, block_manager: BlockManager) -> None:
        self._config = config
        self._block_manager = block_manager
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def has_unfinished(self) -> bool:
        return bool(self._waiting or self._running)

    def schedule(self) -> list[ScheduledSequence]:
        """The next step's sequences; a prompt that exceeds what is left of the token budget is cut into chunks."""
        budget = self._config.max_num_batched_tokens
        scheduled = []
        # Decodes take one token each and go first, so that a long prompt never stalls them.
        for sequence in sorted(self._running, key=lambda running: running.num_uncomputed_tokens > 1):
            num_tokens = min(sequence.num_uncomputed_tokens, budget)
            if num_tokens > 0:
                scheduled.append(ScheduledSequence(sequence, num_tokens))
                budget -= num_tokens
        while self._waiting and budget > 0 and len(self._running) < self._config.max_num_seqs:
            sequence = self._waiting[0]
            if not self._block_manager.can_allocate(sequence):
                break
            self._block_manager.allocate(sequence)
            self._running.append(self._waiting.popleft())
            num_tokens = min(sequence.num_uncomputed_tokens, budget)
            scheduled.append(ScheduledSequence(sequence, num_tokens))
            budget -= num_tokens
        return scheduled

    def finish(self, sequence: Sequence) -> None:
        """Takes a sequence that has its finish_reason out of the running ones and frees its blocks."""
        self._running.remove(sequence)
        self._block_manager.free(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Takes a sequence that has not finished out of the queue or the running ones."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            self.finish(sequence)

    def check_integrity(self) -> None:
        """Raises AssertionError unless the running sequences own all blocks that are not free."""
        self._block_manager.check_integrity(self._running)
