"""What runners on all devices have in common: the network of one process, with its weights, KV cache and slots."""

from abc import ABC, abstractmethod

import numpy as np

from mindgen.adapters.base_model import BaseModel
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.kernels import plugin
from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.parameters import LoadedWeight, WeightSource
from mindgen.models.base import NetworkSpec
from mindgen.models.registry import build_network
from mindgen.parallel.layout import Shard
from mindgen.parallel.rank_place import RankPlace
from mindgen.parallel.stage import ONLY_STAGE
from mindgen.runner.batch import Batch, Logits
from mindgen.runner.block_store import BlockCopy, BlockStore
from mindgen.runner.device import open_device
from mindgen.runner.slots import NetworkSlots, PackedSlot
from mindgen.runner.spec import RankReport, RunnerSpec
from mindgen.weights.mapped_tensor import MappedTensor
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
        modules, cache_bytes = self._slots.modules, sum(cache.nbytes for cache in self._network.caches())
        sizes = {name: weight.num_bytes for name, weight in source.taken.items()}
        self.report = RankReport(modules, sizes, unknown, cache_bytes)
        has_tied_head = spec.model_config.tie_word_embeddings
        self.base_model = BaseModel(weights.model, tensors, spec.dtype, has_tied_head, modules)
        return source

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

    def update_weights(self, name: str, dtype: str, values: np.ndarray) -> int:
        tensors = self._network.translate({name: MappedTensor(dtype, values)})
        taken = [(tensor, self._source.taken.get(each)) for each, tensor in tensors.items()]
        for tensor, weight in taken:
            if weight is not None:
                weight.check(name, tensor)
        num_bytes = 0
        for tensor, weight in taken:
            if weight is not None:
                self._replace(weight, self._source.part_of(tensor, weight.layout))
                num_bytes += weight.num_bytes
        return num_bytes

    @abstractmethod
    def _replace(self, weight: LoadedWeight, part: np.ndarray) -> None:
        """Puts this process's part, in the storage of the network's dtype, where the network has the weight."""

    def close(self) -> None:  # noqa: B027
        """There is nothing to end."""
