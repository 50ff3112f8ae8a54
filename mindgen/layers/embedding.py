"""Token embedding."""

from mindspore import Tensor, nn, ops

from mindgen.layers.parameters import WeightSource, empty_parameter, share
from mindgen.parallel.layout import WHOLE, Axis, Shard


class Embedding(nn.Cell):
    """x (T, H) = weight (V, H) at the token ids (T,); the ranks split the vocabulary.

    Attributes:
        layout: of the weight.
    """

    def __init__(self, vocab_size: int, hidden_size: int, dtype: str, shard: Shard = WHOLE) -> None:
        super().__init__()
        vocabulary = shard.split(vocab_size)
        self.layout = shard.layout(vocabulary, Axis(hidden_size))
        self.weight = empty_parameter(dtype, "weight")
        self.gather = ops.Gather()
        self.is_split = shard.rank is not None and shard.num_ranks > 1
        if self.is_split:
            self.first_id = vocabulary.slice_of(shard.rank or 0).start
            self.lookup = ops.EmbeddingLookup()
            self.all_reduce = ops.AllReduce()

    def load(self, source: WeightSource, name: str) -> None:
        share(self.weight, source.take(f"{name}.weight", self.layout), source.dtype)

    def construct(self, input_ids: Tensor) -> Tensor:
        if self.is_split:  # ids of other ranks give zeros
            return self.all_reduce(self.lookup(self.weight, input_ids, self.first_id))
        return self.gather(self.weight, input_ids, 0)
