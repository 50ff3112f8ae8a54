"""The part of an adapter that a rank of a tensor-parallel group holds, from the layouts of the weights it updates.

Where a weight (out, in) is cut along its outputs, B (out, r) is cut alike and A (r, in) is whole on every rank; where
it is cut along its inputs, A is cut alike, B is whole, and the ranks' products add up.
"""

from mindgen.adapters.formats.peft import LoraPair, LoraUpdate
from mindgen.errors import AdapterError
from mindgen.parallel.layout import Axis, Shard, TensorLayout
from mindgen.weights.mapped_tensor import MappedTensor


def half_layouts(weight: TensorLayout, rank: int) -> tuple[TensorLayout, TensorLayout]:
    """Of A (r, in) and B (out, r)."""
    outputs, inputs = weight.axes
    whole = Axis(rank)
    return TensorLayout(weight.num_ranks, (whole, inputs)), TensorLayout(weight.num_ranks, (outputs, whole))


def slice_pair(pair: LoraPair, weight: TensorLayout, shard: Shard) -> LoraPair:
    """This process's part of a pair."""
    a, b = half_layouts(weight, len(pair.a))
    return LoraPair(shard.cut(pair.a, a), shard.cut(pair.b, b), pair.scaling, pair.dtype)


def slice_update(update: LoraUpdate, weight: TensorLayout, rank: int) -> LoraUpdate:
    """The rank's part of an update, in the storage of its tensors.

    Raises:
        AdapterError: the adapter is not plain LoRA, which is all that a batch serves.
    """
    if update.magnitude is not None or update.bias is not None or update.is_embedding:
        raise AdapterError("only plain LoRA of linears is sliced; merge other adapters first")
    a, b = half_layouts(weight, update.rank)
    return LoraUpdate(
        MappedTensor(update.a.dtype, a.cut(update.a.data, rank)),
        MappedTensor(update.b.dtype, b.cut(update.b.data, rank)),
        update.scaling,
    )


def join_updates(parts: list[LoraUpdate], weight: TensorLayout) -> LoraUpdate:
    """The whole update from all ranks' parts."""
    first = parts[0]
    a, b = half_layouts(weight, first.rank)
    return LoraUpdate(
        MappedTensor(first.a.dtype, a.join([part.a.data for part in parts])),
        MappedTensor(first.b.dtype, b.join([part.b.data for part in parts])),
        first.scaling,
    )
