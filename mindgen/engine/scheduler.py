"""Which sequences run in the next step, and with how many tokens each."""

from bisect import insort
from collections.abc import Callable, Collection, Iterator
from operator import attrgetter

from mindgen.engine.block_manager import BlockManager
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.schedule import AdapterSlots, Schedule, follow, num_next
from mindgen.engine.sequence import Request, Sequence
from mindgen.errors import MindgenError, QueueFullError

# A request goes before so many later ones for each level of priority, and before no more: none waits forever.
_RANKS_PER_PRIORITY = 256
# So many requests whose adapter has to wait for a place are passed over, each so many times.
_LOOKAHEAD = 64
_MAX_OVERTAKEN = 64
_RANK = attrgetter("rank")


class Scheduler:
    """First come, first served, within what priorities allow.

    Running sequences decode first, then prompts go on, then waiting ones join while tokens, places and blocks last.
    When blocks run out, the running sequence that came last gives its own back and waits: to be computed again, or to
    come back from host memory where there is room for it.

    Args:
        num_swap_blocks: of host memory.
        draft: guesses up to so many tokens that may follow a sequence.
        adapters: gives running sequences their adapters' slots; None where there are no adapters.

    Attributes:
        admits_new: whether requests that have never run may.
    """

    def __init__(
        self,
        config: EngineConfig,
        block_manager: BlockManager,
        num_swap_blocks: int = 0,
        draft: Callable[[Sequence, int], list[int]] = lambda sequence, count: [],
        adapters: AdapterSlots | None = None,
    ) -> None:
        self._config = config
        self._blocks = block_manager
        self._draft = draft
        self._adapters = adapters
        self._num_swap_blocks = num_swap_blocks
        self._num_swapped = 0
        self._num_added = 0
        self._waiting: list[tuple[int, int, int, Sequence]] = []  # sorted
        self._running: list[Sequence] = []  # sorted
        self.admits_new = True

    def add(self, request: Request) -> None:
        """Queues a request by its first sequence.

        Raises:
            QueueFullError: max_waiting requests wait already.
        """
        limit = self._config.max_waiting
        if limit is not None and self.num_waiting >= limit:
            raise QueueFullError(f"{limit} requests wait already, the most that max_waiting allows")
        self._num_added += 1
        request.queue_rank = self._num_added + request.params.priority * _RANKS_PER_PRIORITY
        self._push(request.sequences[0])

    @property
    def num_waiting(self) -> int:
        """Requests that have not run yet."""
        return sum(not sequence.request.has_joined for *_, sequence in self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def has_unfinished(self) -> bool:
        return bool(self._waiting or self._running)

    def unfinished(self) -> Iterator[Sequence]:
        """All sequences that run or wait."""
        yield from self._running
        for *_, sequence in self._waiting:
            yield sequence

    def schedule(self) -> Schedule:
        """The next step; empty only if nothing is unfinished, or all wait for their request's other beams."""
        schedule = Schedule()
        self._admit(schedule, self._run(schedule))
        while not schedule.entries and self._waiting and self._running:  # beams that wait for a waiting one
            self._preempt(max(self._running, key=_RANK), schedule)
            self._admit(schedule, self._config.max_num_batched_tokens)
        if self._adapters is not None:
            requests = (sequence.request for *_, sequence in self._waiting[:_LOOKAHEAD])
            self._adapters.prefetch([each.adapter for each in requests if each.adapter is not None])
        return schedule

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Lets a child run beside its parent, on the parent's blocks; or wait if it cannot."""
        if parent.block_table and len(self._running) < self._config.max_num_seqs:
            self._blocks.fork(parent, child)
            self._pin(child.request)
            insort(self._running, child, key=_RANK)
        else:
            self._push(child)

    def replace(self, parents: list[Sequence], forks: list[tuple[Sequence, Sequence]]) -> None:
        """Puts children in the place of all these sequences; forks are of a parent and its child."""
        # Or their adapter might lose its place in between.
        is_pinned = any(parent.block_table for parent in parents) and self._pin(parents[0].request)
        for parent in parents:
            self._take_out(parent)
        for parent, child in forks:
            self.fork(parent, child)
        for parent in parents:
            self._blocks.free(parent)
        if is_pinned:
            self._unpin(parents[0].request)

    def finish(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it stands."""
        self._take_out(sequence)
        self._blocks.free(sequence)

    def restart(self, requests: Collection[Request]) -> None:
        """Has these requests computed again, from what they have generated so far."""
        known = set(self.unfinished())
        for request in requests:
            started = [
                sequence
                for sequence in request.sequences
                if sequence.finish_reason is None and (request.beam_search is not None or sequence in known)
            ]
            for sequence in started:
                self._take_out(sequence)
                self._blocks.free(sequence)
                sequence.block_keys.clear()
                self._push(sequence)
            request.continuations.clear()
            if request.prompt_logprobs is not None and len(request.prompt_logprobs) < len(request.prompt_token_ids):
                request.prompt_logprobs[:] = [None]

    def pinned_slots(self) -> list[int]:
        """The adapter slot of each running sequence that has one."""
        return [each.request.adapter_slot for each in self._running if each.request.adapter_slot is not None]

    def check_integrity(self) -> None:
        """Raises AssertionError unless the running sequences own all blocks that are not free."""
        self._blocks.check_integrity(self._running)
        waiting = [sequence for *_, sequence in self._waiting]
        assert not any(sequence.block_table for sequence in waiting), "a waiting sequence has blocks"
        assert sum(sequence.swapped_blocks for sequence in waiting) == self._num_swapped, "host blocks are lost"
        assert len(self._running) <= self._config.max_num_seqs, "more sequences run than may"

    def _run(self, schedule: Schedule) -> int:
        """Schedules running sequences; the token budget that is left for others, none if blocks ran out."""
        budget = self._config.max_num_batched_tokens
        # Decodes take one token each and go first, so that a long prompt never stalls them.
        order = sorted(self._running, key=attrgetter("is_prompt"))
        running = set(order)
        for sequence in order:
            num_known, num_computed = len(sequence.token_ids), sequence.num_computed_tokens
            num_tokens = 1 if num_known - num_computed == 1 and budget > 0 else self._num_next(sequence, budget)
            if sequence not in running or num_tokens == 0:
                continue
            draft: list[int] = []
            if num_known - num_computed == 1 and num_known > sequence.prompt_len:
                draft = self._draft(sequence, max(0, budget - len(running)))
            while (copies := self._blocks.grow(sequence, num_computed + num_tokens + len(draft))) is None:
                if draft:
                    draft = []
                    continue
                left = running - {entry.sequence for entry in schedule.entries}
                victim = max(left, key=_RANK)
                running.discard(victim)
                self._preempt(victim, schedule)
                if victim is sequence:
                    break
            else:
                schedule.add(sequence, num_tokens, draft, copies)
                budget -= num_tokens + len(draft)
        return budget if len(running) == len(order) else 0

    def _admit(self, schedule: Schedule, budget: int) -> None:
        """Lets waiting sequences join, the oldest first; one without a place for its adapter may be overtaken."""
        passed: list[Request] = []
        for *_, sequence in self._waiting[:]:
            request = sequence.request
            if not (self.admits_new or request.has_joined):
                continue
            if budget == 0 or len(self._running) == self._config.max_num_seqs or len(passed) == _LOOKAHEAD:
                break
            try:
                has_adapter = self._pin(request)
            except MindgenError as error:
                schedule.failed.append((request, error))
                continue
            if not has_adapter:
                passed.append(request)
                if request.num_overtaken >= _MAX_OVERTAKEN:
                    break  # it gets the next place
                continue
            num_tokens = self._join(sequence, schedule, budget)
            if num_tokens is None:
                self._unpin(request)
                break
            budget -= num_tokens
            self._waiting.remove((*sequence.rank, sequence))
            for each in passed:
                each.num_overtaken += 1

    def _join(self, sequence: Sequence, schedule: Schedule, budget: int) -> int | None:
        """Gives a waiting sequence blocks; the tokens that it takes of the budget, None if it has to wait."""
        if sequence.swapped_blocks:
            if not self._swap_in(sequence, schedule):
                return None
        else:
            if sequence.request.prompt_logprobs is None or sequence.output_token_ids:
                self._blocks.use_cached_prefix(sequence)
            needed = self._blocks.num_missing(sequence, len(sequence.token_ids))
            # Room is left for those that run to go on.
            if needed + len(self._running) > self._blocks.num_free or self._num_next(sequence, budget) == 0:
                self._blocks.free(sequence)
                return None
            if not sequence.request.has_joined:
                sequence.request.num_cached_tokens = sequence.num_computed_tokens
        sequence.request.has_joined = True
        insort(self._running, sequence, key=_RANK)
        num_tokens = self._num_next(sequence, budget)
        if num_tokens > 0:
            copies = self._blocks.grow(sequence, sequence.num_computed_tokens + num_tokens)
            assert copies is not None
            schedule.add(sequence, num_tokens, [], copies)
        return num_tokens

    def _pin(self, request: Request) -> bool:
        """Whether the request's adapter has a place, which a sequence that runs keeps."""
        if request.adapter is None or self._adapters is None:
            return True
        slot = self._adapters.pin(request.adapter)
        follow(self._adapters.take_moves(), self._running)
        if slot is None:
            return False
        request.adapter_slot = slot
        request.adapter_digest = request.adapter.digest
        return True

    def _unpin(self, request: Request) -> None:
        if request.adapter is not None and self._adapters is not None:
            assert request.adapter_slot is not None
            self._adapters.unpin(request.adapter_slot)

    def _num_next(self, sequence: Sequence, budget: int) -> int:
        return num_next(sequence, budget, self._config.enable_chunked_prefill)

    def _preempt(self, sequence: Sequence, schedule: Schedule) -> None:
        """Takes a running sequence's blocks; it waits again, by its old rank."""
        self._running.remove(sequence)
        self._unpin(sequence.request)
        schedule.num_preempted += 1
        if sequence.num_uncomputed_tokens == 0:  # a beam, which nobody needs but as its children's parent
            self._blocks.free(sequence)
            return
        num_computed = sequence.num_computed_tokens
        num_blocks = self._blocks.num_needed(num_computed)
        if 0 < num_blocks <= self._num_swap_blocks - self._num_swapped:
            sequence.swapped_blocks = num_blocks
            self._num_swapped += num_blocks
            schedule.swapped_out.append((sequence, sequence.block_table[:num_blocks]))
        self._blocks.free(sequence)
        if sequence.swapped_blocks:
            sequence.num_computed_tokens = num_computed
        self._push(sequence)

    def _swap_in(self, sequence: Sequence, schedule: Schedule) -> bool:
        needed = self._blocks.num_needed(len(sequence.token_ids))
        if needed + len(self._running) > self._blocks.num_free:
            return False
        self._blocks.grow(sequence, sequence.num_computed_tokens)
        self._num_swapped -= sequence.swapped_blocks
        sequence.swapped_blocks = 0
        schedule.swapped_in.append(sequence)
        return True

    def _take_out(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
            self._unpin(sequence.request)
            return
        self._waiting = [entry for entry in self._waiting if entry[-1] is not sequence]
        self._num_swapped -= sequence.swapped_blocks
        sequence.swapped_blocks = 0

    def _push(self, sequence: Sequence) -> None:
        insort(self._waiting, (*sequence.rank, sequence))
