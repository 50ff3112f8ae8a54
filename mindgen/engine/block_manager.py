"""Who reads and writes which block of the KV cache, and what the blocks that nobody uses still hold."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable

from mindgen.engine.sequence import Sequence
from mindgen.runner.block_store import BlockCopy


class BlockManager:
    """Counts the users of each block of block_size tokens; a block is written by its only user alone.

    Full blocks are found again by the tokens up to their end and the weights that computed them, the base model's and
    the adapter's, for as long as nobody needs their place: blocks without a user are given out least recently used
    first, after those that hold nothing to be found.
    """

    def __init__(self, num_blocks: int, block_size: int, enable_prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._enable_prefix_caching = enable_prefix_caching
        self._users = [0] * num_blocks
        self._free = OrderedDict.fromkeys(range(num_blocks))
        self._cached: dict[bytes, int] = {}
        self._keys: list[bytes | None] = [None] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks without a user; what they hold may still be found by its tokens."""
        return len(self._free)

    def num_needed(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def num_missing(self, sequence: Sequence, num_tokens: int) -> int:
        """How many blocks it takes to have room for the sequence's first num_tokens, and to write the last of them."""
        missing = self.num_needed(num_tokens) - len(sequence.block_table)
        return missing + (self._shared_block(sequence) is not None)

    def grow(self, sequence: Sequence, num_tokens: int) -> list[BlockCopy] | None:
        """Makes room for the sequence's first num_tokens; the caller copies blocks that others read as well.

        None, and nothing is done, if there are not enough free blocks.
        """
        table, place = sequence.block_table, sequence.num_computed_tokens // self.block_size
        if num_tokens <= len(table) * self.block_size and place < len(table) and self._users[table[place]] == 1:
            return []  # it takes no block at all, as in most steps
        if self.num_missing(sequence, num_tokens) > len(self._free):
            return None
        copies = []
        shared = self._shared_block(sequence)
        if shared is not None:
            source = sequence.block_table[shared]
            sequence.block_table[shared] = self._take()
            self._users[source] -= 1
            copies.append(BlockCopy(source, sequence.block_table[shared]))
        while len(sequence.block_table) < self.num_needed(num_tokens):
            sequence.block_table.append(self._take())
        return copies

    def use_cached_prefix(self, sequence: Sequence) -> None:
        """Gives a sequence without blocks those that hold the beginning of its tokens, but for the last token."""
        if not self._enable_prefix_caching:
            return
        for index in range((len(sequence.token_ids) - 1) // self.block_size):
            block = self._cached.get(self._block_key(sequence, index))
            if block is None:
                break
            self._add_user(block)
            sequence.block_table.append(block)
        sequence.num_computed_tokens = len(sequence.block_table) * self.block_size
        sequence.num_remembered_blocks = len(sequence.block_table)

    def remember(self, sequence: Sequence) -> None:
        """Has the sequence's full, computed blocks found by others."""
        num_full = sequence.num_computed_tokens // self.block_size
        if num_full <= sequence.num_remembered_blocks or not self._enable_prefix_caching:
            return
        for index in range(sequence.num_remembered_blocks, num_full):
            block, key = sequence.block_table[index], self._block_key(sequence, index)
            if key not in self._cached and self._keys[block] is None:
                self._cached[key] = block
                self._keys[block] = key
        sequence.num_remembered_blocks = num_full

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Lets the child use the parent's blocks."""
        child.block_table = list(parent.block_table)
        child.block_keys = list(parent.block_keys)
        child.num_remembered_blocks = parent.num_remembered_blocks
        child.num_computed_tokens = parent.num_computed_tokens
        for block in child.block_table:
            self._add_user(block)

    def free(self, sequence: Sequence) -> None:
        """Takes the sequence's blocks from it; the end of a sequence is given out before its beginning."""
        if sequence.block_table:
            self.remember(sequence)
        for block in reversed(sequence.block_table):
            self._users[block] -= 1
            if self._users[block] == 0:
                self._free[block] = None
                if self._keys[block] is None:
                    self._free.move_to_end(block, last=False)
        sequence.block_table = []
        sequence.num_remembered_blocks = 0
        sequence.num_computed_tokens = 0

    def forget_cached(self) -> None:
        """Forgets what the blocks hold, but for those in use."""
        self._cached.clear()
        self._keys = [None] * self.num_blocks

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Raises AssertionError unless the sequences are the users of all blocks that are not free."""
        users = [0] * self.num_blocks
        for sequence in sequences:
            for block in sequence.block_table:
                users[block] += 1
        assert users == self._users, "a block is lost, or has users that nobody counts"
        assert set(self._free) == {block for block in range(self.num_blocks) if users[block] == 0}, "a block is lost"
        assert all(self._keys[block] == key for key, block in self._cached.items()), "a cached block was given away"

    def _shared_block(self, sequence: Sequence) -> int | None:
        """The place of the block that the next token goes to, if others use that block too."""
        place = sequence.num_computed_tokens // self.block_size
        if place < len(sequence.block_table) and self._users[sequence.block_table[place]] > 1:
            return place
        return None

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        key = self._keys[block]
        if key is not None:
            del self._cached[key]
            self._keys[block] = None
        self._users[block] = 1
        return block

    def _add_user(self, block: int) -> None:
        if self._users[block] == 0:
            del self._free[block]
        self._users[block] += 1

    def _block_key(self, sequence: Sequence, index: int) -> bytes:
        """A digest, for prompts come from strangers: of the weights and all tokens up to the block's end."""
        if index == len(sequence.block_keys):
            before = sequence.block_keys[-1] if index else sequence.request.cache_root()
            tokens = sequence.token_ids[index * self.block_size : (index + 1) * self.block_size]
            sequence.block_keys.append(hashlib.sha256(before + array("i", tokens).tobytes()).digest())
        return sequence.block_keys[index]
