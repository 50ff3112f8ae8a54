"""What the scheduler decides for a step, and what it asks of adapters."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mindgen.adapters.registry import AdapterVersion
from mindgen.adapters.slot_layout import SlotMove
from mindgen.engine.sequence import Request, Sequence
from mindgen.errors import MindgenError
from mindgen.runner.block_store import BlockCopy

# Positions of a prompt whose logits are wanted in one step: each is as large as the vocabulary.
_PROMPT_LOGITS = 64


class ScheduledSequence(NamedTuple):
    """A sequence with the number of its next tokens to compute, guessed ones included.

    Attributes:
        num_logits: for so many of the last of these tokens the logits are wanted.
    """

    sequence: Sequence
    num_tokens: int
    num_logits: int
    draft_token_ids: list[int] = []  # noqa: RUF012


@dataclass(slots=True)
class Schedule:
    """A step: what to do with blocks before it, in this order, and what to compute.

    Attributes:
        swapped_out: sequences whose blocks, these, go to host memory.
        swapped_in: sequences whose blocks come from there.
        failed: requests whose adapter cannot be served, and why; the caller ends them.
        num_preempted: sequences that wait again, for their blocks are others' now.
    """

    swapped_out: list[tuple[Sequence, list[int]]] = field(default_factory=list)
    swapped_in: list[Sequence] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    failed: list[tuple[Request, MindgenError]] = field(default_factory=list)
    entries: list[ScheduledSequence] = field(default_factory=list)
    num_preempted: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(entry.num_tokens for entry in self.entries)

    def add(self, sequence: Sequence, num_tokens: int, draft: list[int], copies: list[BlockCopy]) -> None:
        """Has the next tokens of a sequence computed, and a draft after its last one."""
        self.copies += copies
        is_last = num_tokens == len(sequence.token_ids) - sequence.num_computed_tokens
        num_logits = 1 + len(draft) if is_last else 0
        if sequence.wants_prompt_logits:
            num_logits = num_tokens
        self.entries.append(ScheduledSequence(sequence, num_tokens + len(draft), num_logits, draft))


def num_next(sequence: Sequence, budget: int, is_chunked: bool) -> int:
    """How many tokens of a sequence to compute.

    Args:
        is_chunked: whether a prompt may be computed in several steps.
    """
    num_uncomputed = len(sequence.token_ids) - sequence.num_computed_tokens
    num_tokens = num_uncomputed if num_uncomputed < budget else budget
    if num_uncomputed <= 1:
        return num_tokens
    if sequence.wants_prompt_logits:
        return min(num_tokens, _PROMPT_LOGITS)
    return 0 if num_tokens < num_uncomputed and not is_chunked else num_tokens


class AdapterSlots(Protocol):
    """Where adapters are while sequences use them."""

    def pin(self, version: AdapterVersion) -> int | None:
        """The adapter's slot; None if it has to wait. Raises MindgenError if it cannot be served."""

    def take_moves(self) -> list[SlotMove]:
        """Where pinned adapters have come to meanwhile, as slots have grown."""

    def unpin(self, place: int) -> None: ...

    def prefetch(self, versions: list[AdapterVersion]) -> None:
        """What waiting requests will ask for, the most urgent first."""


def follow(moves: list[SlotMove], running: list[Sequence]) -> None:
    """Tells requests where their adapters are now."""
    places = {move.source: move.target for move in moves}
    for request in {sequence.request for sequence in running} if moves else ():
        if request.adapter_slot is not None:
            request.adapter_slot = places[request.adapter_slot]
