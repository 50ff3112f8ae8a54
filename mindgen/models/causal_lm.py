"""What all networks have around their layers: the head, and the rows whose logits are asked for."""

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops

from mindgen.errors import ModelError
from mindgen.layers.linear import Linear
from mindgen.layers.parameters import WeightSource, empty_parameter, share
from mindgen.model_config import ModelConfig


class CausalLm(nn.Cell):
    """Token ids of a batch to float32 logits (R, V) of the rows that are asked for.

    Args:
        model: gives the hidden states (T, H); has `embed_tokens`, `layers` with their `linears()` and `self_attn`, and
            `load`.

    Attributes:
        derived: ends of the names of tensors that some tools save and that follow from the others.
    """

    derived: tuple[str, ...] = ()

    def __init__(self, config: ModelConfig, model: nn.Cell, dtype: str) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.model = model
        self.tied = config.tie_word_embeddings
        if not self.tied:
            self.lm_head = empty_parameter(dtype, "lm_head.weight")
        self.gather = ops.Gather()
        self.matmul = ops.MatMul(transpose_b=True)
        self.cast = ops.Cast()

    def linears(self) -> list[Linear]:
        """Every linear that adapters can target."""
        return [linear for layer in self.model.layers for linear in layer.linears()]

    def caches(self) -> list[np.ndarray]:
        """The keys and the values of each layer (num_blocks, ...), in the memory where they are."""
        return [cache for layer in self.model.layers for cache in layer.self_attn.cache_memory]

    def load(self, source: WeightSource) -> None:
        """Takes the weights; a tensor that is missing or that nothing takes is a ModelError."""
        self.model.load(source)
        if not self.tied:
            shape = (self.config.vocab_size, self.config.hidden_size)
            share(self.lm_head, source.take("lm_head.weight", shape), self.dtype)
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
