"""Token embedding."""

from mindspore import Tensor, nn, ops

from mindgen.layers.parameters import WeightSource, split_parameter
from mindgen.parallel.layout import WHOLE, Axis, Shard


class Embedding(nn.Cell):
    """x (T, H) = weight (V, H) at the token ids (T,); the ranks split the vocabulary, or have it whole.

    Attributes:
        layout: of the weight.
        cuts: into how many slices MindSpore's compiler cuts its axes.
    """

    def __init__(self, vocab_size: int, hidden_size: int, dtype: str, shard: Shard = WHOLE, split: bool = True) -> None:
        super().__init__()
        vocabulary = shard.split(vocab_size) if split else Axis(vocab_size)
        self.layout = shard.layout(vocabulary, Axis(hidden_size))
        self.weight = split_parameter(self.layout, dtype, "weight", shard)
        self.cuts = (shard.cuts(vocabulary), 1)
        self.gather = ops.Gather().shard((self.cuts, (1,)))
        self.is_split = bool(vocabulary.split_by) and not shard.sliced_by_compiler
        if self.is_split:
            self.first_id = vocabulary.slice_of(shard.rank or 0).start
            self.lookup = ops.EmbeddingLookup()
            self.all_reduce = ops.AllReduce()

    def load(self, source: WeightSource, name: str) -> None:
        source.fill(self.weight, f"{name}.weight", self.layout)

    def construct(self, input_ids: Tensor) -> Tensor:
        if self.is_split:  # ids of other ranks give zeros
            return self.all_reduce(self.lookup(self.weight, input_ids, self.first_id))
        return self.gather(self.weight, input_ids, 0)
