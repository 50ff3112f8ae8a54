"""The paged KV cache, as whoever makes it and whoever hands out its blocks see it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheShape:
    """How many KV blocks there are, and how many tokens each holds."""

    num_blocks: int
    block_size: int
