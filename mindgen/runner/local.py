"""What runners on all devices have in common: the network of one process, with its weights, KV cache and slots."""

from abc import ABC, abstractmethod

import numpy as np

from mindgen.adapters.base_model import BaseModel
from mindgen.adapters.formats.peft import Adapter
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.errors import ConfigError, KernelError
from mindgen.kernels import plugin
from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.parameters import LoadedWeight, WeightSource
from mindgen.layers.spec import NetworkSpec
from mindgen.models.registry import build_network
from mindgen.parallel.layout import Shard
from mindgen.parallel.rank_place import RankPlace
from mindgen.parallel.stage import ONLY_STAGE
from mindgen.runner.batch import Batch, Logits
from mindgen.runner.block_store import BlockCopy, BlockStore
from mindgen.runner.device import open_device
from mindgen.runner.slots import NetworkSlots, PackedSlot
from mindgen.runner.spec import RankReport, RunnerSpec
from mindgen.weights.checksum import tensor_checksum
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.tensor_check import DERIVED
from mindgen.weights.weight_files import WeightFiles


class LocalRunner(ABC):
    """As a Runner, of the network in this process, or of its part of it.

    A subclass says how the network is sliced and where adapters go, and compiles and runs it.

    Args:
        place: among the ranks that share the network; None is this process alone.
    """

    report: RankReport
    base_model: BaseModel

    def __init__(self, spec: RunnerSpec, weights: WeightFiles, place: RankPlace | None = None) -> None:
        self._spec = spec
        self._kernels = plugin.load()
        if spec.num_threads is not None:
            self._kernels.num_threads = spec.num_threads
        self._place = place
        self._group = None if place is None else place.group
        self._stage = ONLY_STAGE if place is None else place.stage
        self._layout = SlotLayout(())
        size, rank = (1, 0) if self._group is None else (self._group.size, self._group.rank)
        self._open(size, rank)
        self._shard = self._make_shard(size, rank)
        self._network = build_network(
            NetworkSpec(spec.model_config, spec.cache, spec.num_positions, spec.dtype, self._shard, self._stage)
        )
        self._network.set_train(False)
        self._slots = self._make_slots()
        self._source = self._load(weights)
        self._staged: dict[str, np.ndarray] = {}
        self._unused: set[str] = set()
        self._caches: list[RowMemory] = self._network.caches()
        self._blocks = BlockStore(self._caches)

    def _open(self, num_ranks: int, rank: int) -> None:
        open_device(self._spec.device, rank, num_ranks)

    @abstractmethod
    def _make_shard(self, num_ranks: int, rank: int) -> Shard: ...

    @abstractmethod
    def _make_slots(self) -> NetworkSlots: ...

    def _load(self, weights: WeightFiles) -> WeightSource:
        spec, place = self._spec, self._place
        tensors = self._network.translate(weights.map(0 if place is None else place.rank))
        check = None if self._group is None else self._group.check
        source = WeightSource(tensors, spec.dtype, self._shard.sliced, check, weights.is_sharded)
        unknown = self._network.load(source)
        self.report = RankReport(
            modules=self._slots.modules,
            weights={name: weight.num_bytes for name, weight in source.taken.items()},
            unknown=unknown,
            cache_bytes=sum(cache.nbytes for cache in self._network.caches()),
            shapes={name: weight.layout.shape for name, weight in source.taken.items()},
            checksums=self._checksums(source, tensors, weights.is_sharded),
            derived=DERIVED,
        )
        self._tensors = tensors
        has_tied_head = spec.model_config.tie_word_embeddings
        self.base_model = BaseModel(weights.model, tensors, spec.dtype, has_tied_head, self._slots.modules)
        return source

    def _checksums(self, source: WeightSource, tensors: dict[str, MappedTensor], is_sharded: bool) -> dict[str, str]:
        """Of whole tensors, for which the first rank looks at the checkpoint; of slices where that has only these."""
        if self._group is not None and self._group.rank > 0 and not is_sharded:
            return {}
        dtype, checksums = self._spec.dtype, {}
        for name, weight in source.taken.items():
            own = weight.memory[weight.rows]
            if own.shape != weight.layout.shape and not is_sharded:
                own = tensors[name].as_dtype(dtype)
            checksums[name] = tensor_checksum(dtype, own)
        return checksums

    @abstractmethod
    def run(self, batch: Batch) -> Logits: ...

    @abstractmethod
    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None: ...

    @abstractmethod
    def write_adapter(self, slot: int, packed: PackedSlot) -> None: ...

    @abstractmethod
    def copy_blocks(self, copies: list[BlockCopy]) -> None: ...

    def pack_adapter(self, adapter: AdapterWeights) -> PackedSlot:
        return self._slots.pack(adapter)

    def keep_blocks(self, key: int, blocks: list[int]) -> None:
        self._blocks.keep_blocks(key, blocks)

    def restore_blocks(self, key: int, blocks: list[int]) -> None:
        self._blocks.restore_blocks(key, blocks)

    def drop_blocks(self, key: int) -> None:
        self._blocks.drop_blocks(key)

    def stage_weight(self, name: str, dtype: str, values: np.ndarray) -> int:
        weight = self._source.taken.get(name)
        if weight is None:
            self._unused.add(name)
            return 0
        tensor = MappedTensor(dtype, values)
        weight.check(name, tensor)
        part = self._source.part_of(tensor, weight.layout)
        if part.nbytes < values.nbytes and np.may_share_memory(part, values):
            part = part.copy()  # or the other ranks' parts would stay in memory
        self._staged[name] = part
        return part.nbytes

    def commit_weights(self) -> int:
        num_bytes = 0
        for name, part in self._staged.items():
            weight = self._source.taken[name]
            if not self._replace(weight, part):
                raise KernelError(f"{name!r} was written, and is not what is there now")
            num_bytes += part.nbytes
            self._renew(name, weight, self._stored(weight))
        for name in self._unused:  # another stage has it, and what the checkpoint says of it is too old
            self._tensors.pop(name, None)
        self.discard_weights()
        return num_bytes

    def discard_weights(self) -> None:
        self._staged, self._unused = {}, set()

    def _renew(self, name: str, weight: LoadedWeight, stored: np.ndarray) -> None:
        """Has adapters see the base model as it is now; of a sliced tensor there is no whole any more."""
        if stored.shape == weight.layout.shape:
            self._tensors[name] = MappedTensor(self._spec.dtype, stored)
        else:
            self._tensors.pop(name, None)

    @abstractmethod
    def _replace(self, weight: LoadedWeight, part: np.ndarray) -> bool:
        """Puts this process's part, in the storage of the network's dtype, where the network has the weight; whether it
        is there afterwards, bit by bit."""

    @abstractmethod
    def _stored(self, weight: LoadedWeight) -> np.ndarray:
        """What the network has of the weight."""

    def drop_caches(self) -> None:
        raise ConfigError(f"sleep gives memory back on the CPU only, and this is {self._spec.device}")

    def drop_weights(self) -> int:
        raise ConfigError(f"sleep gives memory back on the CPU only, and this is {self._spec.device}")

    def restore_weights(self) -> int:
        return 0

    def hold_adapter(self, adapter: Adapter) -> None:  # noqa: B027
        """The engine of this process has it."""

    def drop_adapter(self, digest: str) -> None:  # noqa: B027
        """As `hold_adapter`."""

    def close(self) -> None:  # noqa: B027
        """There is nothing to end."""
