"""Who owns which block of the KV cache."""

from mindgen.engine.sequence import Sequence


class BlockManager:
    """Hands out blocks of block_size tokens each, and takes them back."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks - 1, -1, -1))

    def num_needed(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def can_allocate(self, sequence: Sequence) -> bool:
        return self.num_needed(sequence.max_len) <= len(self._free)

    def allocate(self, sequence: Sequence) -> None:
        """Gives the sequence the blocks for all the tokens it may come to have."""
        sequence.block_table = [self._free.pop() for _ in range(self.num_needed(sequence.max_len))]

    def free(self, sequence: Sequence) -> None:
        self._free.extend(reversed(sequence.block_table))
        sequence.block_table = []

    def check_integrity(self, sequences: list[Sequence]) -> None:
        """Raises AssertionError unless every block is free or owned by one of the sequences, and only once."""
        owned = [block for sequence in sequences for block in sequence.block_table]
        assert sorted(owned + self._free) == list(range(self.num_blocks)), "a block is lost or owned twice"
