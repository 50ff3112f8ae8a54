"""What all networks have around their layers: the head, and the rows whose logits are asked for."""

from mindspore import Tensor, nn, ops

from mindgen.checkpoint.safetensors_map import MappedTensor
from mindgen.errors import ModelError
from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.linear import Linear
from mindgen.layers.parameters import WeightSource
from mindgen.model_config import ModelConfig
from mindgen.parallel.layout import Axis, Shard, Slice, TensorLayout
from mindgen.row_memory import RowMemory


class CausalLm(nn.Cell):
    """Token ids of a batch to float32 logits (R, V) of the rows that are asked for.

    The ranks split the vocabulary: each gives the logits of its part, padded with zeros.

    Args:
        model: gives the hidden states (T, H); has `embed_tokens`, `layers` with their `linears()` and `self_attn`, and
            `load`.

    Attributes:
        derived: ends of the names of tensors that some tools save and that follow from the others.
    """

    derived: tuple[str, ...] = ()

    def __init__(self, config: ModelConfig, model: nn.Cell, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.model = model
        self.tied = config.tie_word_embeddings
        head = {"lm_head": shard.split(config.vocab_size)}
        self.lm_head = Linear(Axis(config.hidden_size), head, dtype, shard=shard, output_dtype="float32")
        self.is_shared = self.tied and shard.sliced_by_compiler
        if self.is_shared:  # or a card would hold it twice
            self.lm_head.weight = model.embed_tokens.weight
        self.gather = ops.Gather().shard(((1, 1), (1,)))

    def linears(self) -> list[Linear]:
        """Every linear of the layers."""
        return [linear for layer in self.model.layers for linear in layer.linears()]

    def tables(self) -> tuple[AdaptedLayer, AdaptedLayer]:
        """Embedding and head, which adapters can target as well as the linears."""
        return self.model.embed_tokens, self.lm_head

    def vocabulary(self) -> Slice:
        """The tokens of which this process has the embedding and the logits."""
        return self.model.embed_tokens.vocabulary

    def layouts(self) -> dict[str, TensorLayout]:
        """How the weights that are split lie on the ranks, by the layers' names; the others are whole on each."""
        layouts = {"model.embed_tokens.weight": self.model.embed_tokens.layout}
        for linear in self.linears() if self.tied else [*self.linears(), self.lm_head]:
            layouts |= linear.weight_layouts() | linear.bias_layouts()
        return layouts

    def state_layouts(self) -> dict[str, TensorLayout]:
        """Of the caches and the adapters' weights, by the names of MindSpore's parameters."""
        layouts: dict[str, TensorLayout] = {}
        for layer in self.model.layers:
            layouts |= layer.self_attn.cache_layouts()
        for linear in [*self.linears(), self.lm_head]:
            layouts |= linear.state_layouts()
        return layouts

    def caches(self) -> list[RowMemory]:
        """The keys and the values of each layer (num_blocks, ...), in the memory where they are."""
        return [cache for layer in self.model.layers for cache in layer.self_attn.cache_memory]

    def translate(self, tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
        """A checkpoint's tensors under the names, and in the shapes, that the layers have them."""
        return tensors

    def load(self, source: WeightSource) -> None:
        """Takes the weights; a tensor that is missing or that nothing takes is a ModelError."""
        self.model.load(source)
        if not self.tied:
            self.lm_head.load(source)
        elif not self.is_shared:
            self.lm_head.tie(self.model.embed_tokens.memory)
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
        adapter_rows: AdapterRows,
        output_adapter_rows: AdapterRows,
        table_rows: tuple[Tensor, ...],
        whole_prompts: bool,
    ) -> Tensor:
        """output_adapter_rows: the same of the rows asked for, for the head; table_rows: for the embedding."""
        hidden = self.model(
            input_ids, positions, slot_mapping, block_tables, context_lens, q_seq_lens, q_seq_ends, adapter_rows,
            table_rows, whole_prompts,
        )  # fmt: skip
        return self.lm_head(self.gather(hidden, output_rows, 0), output_adapter_rows)  # (R, H) -> (R, V)
