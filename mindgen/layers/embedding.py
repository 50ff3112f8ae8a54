"""Token embedding."""

from mindspore import Tensor, ops

from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.lora import SplitTableLevel, TableLevel
from mindgen.layers.parameters import WeightSource, split_parameter
from mindgen.layers.spec import LayerSpec
from mindgen.parallel.layout import WHOLE, Axis, Shard, Slice


class Embedding(AdaptedLayer):
    """x (T, H) = weight (V, H) at the token ids (T,), then the batch's LoRA updates; the ranks split the vocabulary.

    Attributes:
        layout: of the weight.
        vocabulary: the tokens that are in this process.
    """

    def __init__(self, name: str, vocab_size: int, hidden_size: int, dtype: str, shard: Shard = WHOLE) -> None:
        tokens, hidden = shard.split(vocab_size), Axis(hidden_size)
        super().__init__(LayerSpec(tokens, {name: hidden}, dtype, shard), dtype)
        if not shard.sliced_by_compiler:  # which has no tables of adapters
            self.level_type = SplitTableLevel if self.is_partial else TableLevel
        self.layout = shard.layout(tokens, hidden)
        self.vocabulary = tokens.slice_of(shard.rank)
        if shard.sliced_by_compiler:
            self.vocabulary = Slice(0, vocab_size, vocab_size)
        self.weight = split_parameter(self.layout, dtype, "weight", shard)
        self.gather = ops.Gather().shard(((shard.cuts(tokens), 1), (1,)))
        if self.is_partial:
            self.first_id = self.vocabulary.start
            self.lookup = ops.EmbeddingLookup()

    def load(self, source: WeightSource) -> None:
        source.fill(self.weight, f"{next(iter(self.spec.parts))}.weight", self.layout)

    def construct(self, input_ids: Tensor, adapter_rows: AdapterRows, table_rows: tuple[Tensor, ...]) -> Tensor:
        """table_rows: of each level that adds LoRA the row of its table (T,) for each token."""
        segment_ends, slots = adapter_rows
        if self.is_partial:  # tokens of other ranks give zeros
            x = self.lookup(self.weight, input_ids, self.first_id)
        else:
            x = self.gather(self.weight, input_ids, 0)
        for index, rows in enumerate(table_rows):
            x = self.add(x, self.lora[index](rows, segment_ends[index]))
        if self.is_partial:
            x = self.all_reduce(x)
        return self.scale_and_shift(x, slots)
