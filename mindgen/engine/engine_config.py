"""The engine's limits."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mindgen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much the engine takes on at once.

    Attributes:
        block_size: tokens in a block of the KV cache.
        num_blocks: blocks in the cache; None takes what max_num_seqs full-length sequences need, up to
            memory_utilization.
        memory_utilization: the share of free memory for weights, adapters and KV cache together; or the size of the
            KV cache alone, like "4GiB". gpu_memory_utilization in a configuration file means the same.
        swap_space: GiB of host memory for the KV blocks of sequences that have to wait; 0 computes them again.
        enable_prefix_caching: find what earlier requests with the same beginning and adapter have computed.
        enable_chunked_prefill: cut prompts that exceed what is left of a step's tokens.
        max_num_seqs: sequences in a batch.
        max_num_batched_tokens: tokens in a batch.
        max_waiting: requests that may wait; more are refused. None is any number.
        max_model_len: tokens of prompt and output together; None is what the model was made for, its positions,
            and one more is the most: nothing follows the last token.
        max_loras: adapters in memory at once; None is as many as max_num_seqs.
        max_lora_rank: the highest rank that is served, for which there is room from the start; None is any, and room is
            made when an adapter comes that needs it.
        adapter_memory: of the adapters in memory, at most.
        host_adapter_memory: of adapters that have been read and wait for a place, at most.
        executor: what runs the network on the CPU: "mindgen", "mindgen_unfused" (no two ops in one kernel, for
            comparisons) or "mindspore" (MindSpore's own runtime).
        device_target: what the network runs on: "Ascend" (NPUs), "CPU", or "auto" for Ascend where MindSpore sees one.
        num_threads: of the CPU kernels, of all ranks together; None is one for each core.
        tensor_parallel_size: processes that share the network, each with its part of every layer.
        pipeline_parallel_size: stages of the network, one behind the other, each with its part of the layers.
        data_parallel_size: replicas of the model, each with its share of the prompts.
        nnodes: machines that share the ranks of all replicas evenly, each with the same command but for node_rank.
        node_rank: which of them this is; 0 has the prompts, and the limits of all.
        master_addr: the address of machine 0.
        master_port: where machine 0 listens.
        node_timeout: seconds that machines wait for each other at the start.
        adapter_slices: the folder with a rank_N of adapters' slices for each tensor-parallel rank; None cuts them in
            memory.
        worker_timeout: seconds that another process may do nothing while it has something to do; 0 is any time.

    Raises:
        ConfigError: a value is out of its range.
    """

    # How pydantic checks this class where it is part of a configuration file.
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    block_size: int = 16
    num_blocks: int | None = None
    memory_utilization: float | str = "1GiB"
    swap_space: float = 0.0
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 2048
    max_waiting: int | None = None
    max_model_len: int | None = None
    max_loras: int | None = None
    max_lora_rank: int | None = None
    adapter_memory: str = "1GiB"
    host_adapter_memory: str = "1GiB"
    executor: Literal["mindgen", "mindgen_unfused", "mindspore"] = "mindgen"
    device_target: Literal["auto", "CPU", "Ascend"] = "auto"
    num_threads: int | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    nnodes: int = 1
    node_rank: int = 0
    master_addr: str | None = None
    master_port: int = 29500
    node_timeout: float = 25.0
    adapter_slices: str | None = None
    worker_timeout: float = 60.0

    @property
    def ranks_per_replica(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size

    def longest_sequence(self, max_position: int) -> int:
        """In tokens, for a model that was made for so many positions.

        Raises:
            ConfigError: max_model_len is more than that, or a step too small for a whole prompt that must be in one.
        """
        longest = self.max_model_len or max_position
        if longest > max_position + 1:  # the last token of an output takes no position
            raise ConfigError(
                f"engine: max_model_len ({longest}) is more than the {max_position} positions that the model was made "
                "for: lower it to that, or leave it out"
            )
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < longest:
            raise ConfigError(
                f"engine: without enable_chunked_prefill a step must hold a whole prompt: raise max_num_batched_tokens "
                f"({self.max_num_batched_tokens}) to max_model_len ({longest}), or lower the latter"
            )
        return longest

    def __post_init__(self) -> None:
        for name in (
            "block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens", "max_waiting", "max_model_len",
            "max_loras", "max_lora_rank", "num_threads", "tensor_parallel_size",
            "pipeline_parallel_size", "data_parallel_size", "nnodes",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"engine: {name} must be at least 1, not {value}")
        if not isinstance(self.memory_utilization, str) and not 0 < self.memory_utilization <= 1:
            raise ConfigError(
                f"engine: memory_utilization must be above 0 and at most 1, or a size like 4GiB, "
                f"not {self.memory_utilization}"
            )
        if not 0 <= self.swap_space < float("inf"):
            raise ConfigError(f"engine: swap_space must be 0 or more GiB, not {self.swap_space}")
        if not 0 <= self.node_rank < self.nnodes:
            raise ConfigError(
                f"engine: node_rank must be 0 to {self.nnodes - 1}, of {self.nnodes}, not {self.node_rank}"
            )
        if not 0 < self.master_port < 2**16:
            raise ConfigError(f"engine: master_port must be 1 to 65535, not {self.master_port}")
        if not 0 < self.node_timeout < float("inf"):
            raise ConfigError(f"engine: node_timeout must be more than 0 seconds, not {self.node_timeout}")
        if self.nnodes > 1 and not self.master_addr:
            raise ConfigError(
                f"engine: {self.nnodes} nodes must know where node 0 is: give master_addr, the same on all"
            )
        if not 0 <= self.worker_timeout < float("inf"):
            raise ConfigError(f"engine: worker_timeout must be 0 or more seconds, not {self.worker_timeout}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"engine: max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}), for every sequence needs a token in a step"
            )
