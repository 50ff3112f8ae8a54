"""What a runner is made from, and what it does: here, on a device, or on many ranks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mindgen.adapters.base_model import BaseModel
from mindgen.adapters.formats.peft import Adapter
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.parallel.calls import remote, remote_calls
from mindgen.parallel.stage import ONE_RANK, PipelineShape
from mindgen.runner.batch import Batch, Logits
from mindgen.runner.block_store import BlockCopy
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import WeightFiles


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """What all ranks of a network have in common.

    Attributes:
        dtype: of weights, KV cache and hidden states.
        num_positions: rows of the rotary tables, more than any batch has tokens.
        device: CPU or Ascend.
        executor: what runs compiled graphs on the CPU, one of EXECUTORS.
        num_threads: of the kernels of this machine's ranks together; None is one for each core.
        shape: of the ranks.
        host_adapter_bytes: of adapters that a rank has read, at most.
        adapter_slices: as in EngineConfig.
    """

    model_config: ModelConfig
    dtype: str
    cache: CacheShape
    num_positions: int
    device: str = "CPU"
    executor: str = "mindgen"
    num_threads: int | None = None
    shape: PipelineShape = ONE_RANK
    host_adapter_bytes: int = 2**30
    adapter_slices: Path | None = None


@dataclass(frozen=True, slots=True)
class RankReport:
    """What a rank, or all of them, have of the network.

    Attributes:
        modules: (in, out) sizes of what adapters can target, by Hugging Face module name.
        weights: the bytes of each tensor of the checkpoint that has been taken, by name.
        unknown: the tensors that there is no use for.
        cache_bytes: of the layers' keys and values.
        shapes: of the whole tensors that have been taken.
        checksums: of the same, in the network's dtype; of slices, where the checkpoint has only these.
        derived: ends of the names of tensors that checkpoints may have, and that follow from others.
    """

    modules: dict[str, tuple[int, int]]
    weights: dict[str, int]
    unknown: list[str]
    cache_bytes: int
    shapes: dict[str, tuple[int, ...]]
    checksums: dict[str, str]
    derived: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RankHost:
    """What the machine of a rank has for it.

    Attributes:
        adapters: the folders of those that this machine knows by another path than rank 0's.
        cores: that the rank runs on; None is any.
        node: of num_nodes, this machine.
    """

    weights: WeightFiles
    adapters: dict[str, Path]
    cores: list[int] | None
    num_threads: int
    node: int = 0
    num_nodes: int = 1


class AdapterContent(NamedTuple):
    """What another rank needs to read the same adapter."""

    adapter_id: str
    folder: Path
    digest: str


class PackedAdapter(Protocol):
    """An adapter in the form of a slot; only the runner that has packed it knows more of it."""

    @property
    def num_bytes(self) -> int: ...


class Runner(Protocol):
    """The network with its KV cache and adapter slots; what is marked as remote, all of its ranks do alike.

    Attributes:
        report: of what has been loaded.
        base_model: what adapters are checked against, besides the sizes of modules.
    """

    report: RankReport
    base_model: BaseModel

    @remote()
    def run(self, batch: Batch) -> Logits:
        """The logits of the rows that the batch asks for; good until the next run.

        Raises:
            KernelError: an op refused what the graph gave it, or the ranks have been ended.
            WorkerError: a rank has ended.
        """

    @remote()
    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        """Copies blocks of all caches."""

    @remote()
    def keep_blocks(self, key: int, blocks: list[int]) -> None:
        """Keeps what is in blocks in host memory, by a key."""

    @remote()
    def restore_blocks(self, key: int, blocks: list[int]) -> None:
        """Puts kept blocks back, into others."""

    @remote()
    def drop_blocks(self, key: int) -> None:
        """Forgets kept blocks."""

    @remote()
    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None:
        """Makes room for adapters, in place of what room there was; what has been packed fits no longer.

        Args:
            moves: the adapters that come along.
        """

    def pack_adapter(self, adapter: AdapterWeights) -> PackedAdapter:
        """The adapter in the form of a slot; may be called from any thread.

        Raises:
            AdapterError: it has something that is not served on the device.
        """

    def write_adapter(self, slot: int, packed: Any) -> None:
        """Puts what pack_adapter has given into a slot."""

    @remote(join=sum)
    def stage_weight(self, name: str, dtype: str, values: np.ndarray) -> int:
        """Keeps a tensor to take the place of the one that was loaded; any thread may call.

        Args:
            name: as the network has it.
            dtype: of the values, which are in its storage, and which nobody may change from now on.

        Returns:
            The bytes that all ranks keep of it; 0 if there is no use for it.

        Raises:
            ModelError: it has another shape than the one that was loaded; where there are several ranks, all end.
        """

    @remote(join=sum)
    def commit_weights(self) -> int:
        """Puts all that is staged in its place, and looks whether it is there; the bytes of all ranks.

        Raises:
            KernelError: what is there afterwards is something else.
        """

    @remote()
    def discard_weights(self) -> None:
        """Forgets what is staged."""

    @remote()
    def drop_caches(self) -> None:
        """Gives the memory of the KV cache back; what it held is lost.

        Raises:
            ConfigError: the device cannot.
        """

    @remote(join=sum)
    def drop_weights(self) -> int:
        """Gives the memory of the weights back, which a file keeps meanwhile; its bytes.

        Raises:
            ConfigError: the device cannot.
            OSError: the disk is full.
        """

    @remote(join=sum)
    def restore_weights(self) -> int:
        """Has the weights as they were before `drop_weights`; their bytes.

        Raises:
            CheckpointError: the file has changed.
        """

    @remote()
    def hold_adapter(self, adapter: Adapter) -> None:
        """Has ranks of other processes know an adapter that lies in no folder, by its digest."""

    @remote()
    def drop_adapter(self, digest: str) -> None:
        """Has them forget it."""

    def close(self) -> None:
        """Ends the other ranks, if there are any; nothing can be asked for afterwards."""


RUNNER_CALLS = remote_calls(Runner)
