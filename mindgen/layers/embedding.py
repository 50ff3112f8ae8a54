"""Token embedding."""

from typing import ClassVar

from mindspore import Tensor, ops

from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.lora import LoraLevel, TableLevel
from mindgen.layers.parameters import WeightSource, empty_parameter, share


class Embedding(AdaptedLayer):
    """x (T, H) = weight (V, H) at the token ids (T,), then the batch's LoRA updates."""

    level_type: ClassVar[type[LoraLevel]] = TableLevel

    def __init__(self, name: str, vocab_size: int, hidden_size: int, dtype: str) -> None:
        super().__init__(vocab_size, {name: hidden_size}, dtype, dtype)
        self.shape = (vocab_size, hidden_size)
        self.weight = empty_parameter(dtype, "weight")
        self.gather = ops.Gather()

    def load(self, source: WeightSource) -> None:
        self.memory = source.take(f"{next(iter(self.parts))}.weight", self.shape)
        share(self.weight, self.memory, source.dtype)

    def construct(self, input_ids: Tensor, adapter_rows: AdapterRows, table_rows: tuple[Tensor, ...]) -> Tensor:
        """table_rows: of each level that adds LoRA the row of its table (T,) for each token."""
        segment_ends, slots = adapter_rows
        x = self.gather(self.weight, input_ids, 0)
        for index, rows in enumerate(table_rows):
            x = self.add(x, self.lora[index](rows, segment_ends[index]))
        return self.scale_and_shift(x, slots)
