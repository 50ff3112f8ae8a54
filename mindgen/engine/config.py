"""The engine's limits."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mindgen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much the engine takes on at once.

    Attributes:
        block_size: tokens in a block of the KV cache.
        num_blocks: blocks in the cache; None takes what max_num_seqs full-length sequences need, up to kv_cache_gib.
        kv_cache_gib: bound of that default, in GiB; one full-length sequence always fits.
        max_num_seqs: sequences in a batch.
        max_num_batched_tokens: tokens in a batch; longer prompts are computed in chunks.
        max_model_len: tokens of prompt and output together; None is what the model was made for.
        executor: what runs the network on the CPU: "mindgen", "mindgen_unfused" (no two ops in one kernel, for
            comparisons) or "mindspore" (MindSpore's own runtime).
        num_threads: of the CPU kernels, in the whole process; None is one for each core.

    Raises:
        ConfigError: a value is out of its range.
    """

    # How pydantic checks this class where it is part of a configuration file.
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    block_size: int = 16
    num_blocks: int | None = None
    kv_cache_gib: float = 1.0
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 2048
    max_model_len: int | None = None
    executor: Literal["mindgen", "mindgen_unfused", "mindspore"] = "mindgen"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens", "max_model_len",
            "num_threads",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"engine: {name} must be at least 1, not {value}")
        if self.kv_cache_gib <= 0:
            raise ConfigError(f"engine: kv_cache_gib must be above 0, not {self.kv_cache_gib}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"engine: max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}), for every sequence needs a token in a step"
            )
