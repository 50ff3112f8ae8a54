"""What all networks have around their layers: the head, and the rows whose logits are asked for."""

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops

from mindgen.errors import ModelError
from mindgen.layers.linear import Linear
from mindgen.layers.parameters import WeightSource, split_parameter
from mindgen.model_config import ModelConfig
from mindgen.parallel.layout import Shard, TensorLayout


class CausalLm(nn.Cell):
    """Token ids of a batch to float32 logits (R, V) of the rows that are asked for.

    The ranks split the vocabulary: each gives the logits of its part, padded with zeros.

    Args:
        model: gives the hidden states (T, H); has `embed_tokens`, `layers` with their `linears()` and `self_attn`, and
            `load`.

    Attributes:
        embedding_name: of the module with the token embedding, as in Hugging Face.
        derived: ends of the names of tensors that some tools save and that follow from the others.
    """

    embedding_name = "model.embed_tokens"
    derived: tuple[str, ...] = ()

    def __init__(self, config: ModelConfig, model: nn.Cell, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.model = model
        self.tied = config.tie_word_embeddings
        if not self.tied:
            self.lm_head = split_parameter(model.embed_tokens.layout, dtype, "lm_head.weight", shard)
        self.gather = ops.Gather().shard(((1, 1), (1,)))
        self.matmul = ops.MatMul(transpose_b=True).shard(((1, 1), model.embed_tokens.cuts))
        self.cast = ops.Cast().shard(((1, 1),))  # under semi-auto parallelism all ranks get all logits

    def linears(self) -> list[Linear]:
        """Every linear that adapters can target."""
        return [linear for layer in self.model.layers for linear in layer.linears()]

    def layouts(self) -> dict[str, TensorLayout]:
        """How the weights that are split lie on the ranks, by Hugging Face name; the others are whole on each."""
        embedding = self.model.embed_tokens.layout
        layouts = {f"{self.embedding_name}.weight": embedding}
        if not self.tied:
            layouts["lm_head.weight"] = embedding
        for linear in self.linears():
            layouts |= linear.weight_layouts() | linear.bias_layouts()
        return layouts

    def state_layouts(self) -> dict[str, TensorLayout]:
        """Of the caches and the adapters' weights, by the names of MindSpore's parameters."""
        layouts: dict[str, TensorLayout] = {}
        for layer in self.model.layers:
            layouts |= layer.self_attn.cache_layouts()
        for linear in self.linears():
            for level in linear.lora:
                layouts |= level.layouts()
        return layouts

    def caches(self) -> list[np.ndarray]:
        """The keys and the values of each layer (num_blocks, ...), in the memory where they are."""
        return [cache for layer in self.model.layers for cache in layer.self_attn.cache_memory]

    def load(self, source: WeightSource) -> None:
        """Takes the weights; a tensor that is missing or that nothing takes is a ModelError."""
        self.model.load(source)
        if not self.tied:
            source.fill(self.lm_head, "lm_head.weight", self.model.embed_tokens.layout)
        derived = (*self.derived, "lm_head.weight") if self.tied else self.derived
        unknown = [name for name in source.remaining() if not name.endswith(derived)]
        if unknown:
            raise ModelError(
                f"the checkpoint has {len(unknown)} tensors that {self.config.architecture} does not: {unknown[:4]}"
            )

    def construct(
        self,
        input_ids: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        q_seq_ends: Tensor,
        output_rows: Tensor,
        segment_ends: tuple[Tensor, ...],
        whole_prompts: bool,
    ) -> Tensor:
        hidden = self.model(
            input_ids, positions, slot_mapping, block_tables, context_lens, q_seq_lens, q_seq_ends, segment_ends,
            whole_prompts,
        )  # fmt: skip
        head = self.model.embed_tokens.weight if self.tied else self.lm_head
        logits = self.matmul(self.gather(hidden, output_rows, 0), head)  # (R, H) -> (R, V)
        return self.cast(logits, mindspore.float32)
