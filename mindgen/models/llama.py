"""Llama 2 and 3, Qwen2 (a bias on q, k and v) and Qwen3 (a norm on q and k); parameter names as in Hugging Face."""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen import dtypes
from mindgen.errors import ModelError
from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.attention import Attention, CacheShape, StepInputs
from mindgen.layers.embedding import Embedding
from mindgen.layers.linear import Linear
from mindgen.layers.norm import RmsNorm
from mindgen.layers.parameters import WeightSource, empty_parameter, share
from mindgen.layers.rotary import rotary_tables
from mindgen.model_config import ModelConfig
from mindgen.parallel.layout import WHOLE, Axis, Shard, Slice, TensorLayout


class LlamaMlp(nn.Cell):
    """down(silu(gate x) * up x)"""

    def __init__(self, config: ModelConfig, prefix: str, dtype: str, shard: Shard) -> None:
        super().__init__()
        hidden, inner = Axis(config.hidden_size), shard.split(config.intermediate_size)
        gate_up = {f"{prefix}.gate_proj": inner, f"{prefix}.up_proj": inner}
        self.gate_up_proj = Linear(hidden, gate_up, dtype, config.mlp_bias, shard)
        self.down_proj = Linear(inner, {f"{prefix}.down_proj": hidden}, dtype, config.mlp_bias, shard)
        self.swiglu = gen.Swiglu()

    def linears(self) -> list[Linear]:
        return [self.gate_up_proj, self.down_proj]

    def construct(self, x: Tensor, adapter_rows: AdapterRows) -> Tensor:
        gated = self.swiglu(self.gate_up_proj(x, adapter_rows), -1)  # (T, 2*inner) -> (T, inner)
        return self.down_proj(gated, adapter_rows)


class LlamaLayer(nn.Cell):
    """One decoder layer; the residual addition of its MLP happens in the next norm."""

    def __init__(self, config: ModelConfig, cache: CacheShape, prefix: str, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.prefix = prefix
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.self_attn = Attention(config, cache, f"{prefix}.self_attn", dtype, shard)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.mlp = LlamaMlp(config, f"{prefix}.mlp", dtype, shard)

    def linears(self) -> list[Linear]:
        return self.self_attn.linears() + self.mlp.linears()

    def load(self, source: WeightSource) -> None:
        self.input_layernorm.load(source, f"{self.prefix}.input_layernorm")
        self.post_attention_layernorm.load(source, f"{self.prefix}.post_attention_layernorm")
        self.self_attn.load(source)
        for linear in self.mlp.linears():
            linear.load(source)

    def construct(
        self,
        x: Tensor,
        residual: Tensor | None,
        step: StepInputs,
        adapter_rows: AdapterRows,
        whole_prompts: bool,
    ) -> tuple[Tensor, Tensor]:
        """x, residual (T, H) to the same; the first layer has no residual yet."""
        x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(x, step, adapter_rows, whole_prompts)
        x, residual = self.post_attention_layernorm(x, residual)
        return self.mlp(x, adapter_rows), residual


class LlamaModel(nn.Cell):
    """Embedding, layers and final norm."""

    def __init__(self, config: ModelConfig, cache: CacheShape, num_positions: int, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.embed_tokens = Embedding("model.embed_tokens", config.vocab_size, config.hidden_size, dtype, shard)
        self.layers = nn.CellList(
            [LlamaLayer(config, cache, f"model.layers.{index}", dtype, shard) for index in range(config.num_layers)]
        )
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps, dtype)
        cos, sin = rotary_tables(config.rope, config.head_size, num_positions)
        self.cos, self.sin = empty_parameter(dtype, "cos"), empty_parameter(dtype, "sin")
        share(self.cos, dtypes.from_float32(cos, dtype), dtype)
        share(self.sin, dtypes.from_float32(sin, dtype), dtype)
        self.gather = ops.Gather()

    def load(self, source: WeightSource) -> None:
        self.embed_tokens.load(source)
        for layer in self.layers:
            layer.load(source)
        self.norm.load(source, "model.norm")

    def construct(
        self,
        input_ids: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        q_seq_ends: Tensor,
        adapter_rows: AdapterRows,
        table_rows: tuple[Tensor, ...],
        whole_prompts: bool,
    ) -> Tensor:
        cos, sin = self.cos, self.sin  # (num_positions, D)
        if not whole_prompts:
            cos, sin = self.gather(cos, positions, 0), self.gather(sin, positions, 0)  # (T, D)
        step = (cos, sin, slot_mapping, block_tables, context_lens, q_seq_lens, q_seq_ends)
        x, residual = self.embed_tokens(input_ids, adapter_rows, table_rows), None
        for layer in self.layers:
            x, residual = layer(x, residual, step, adapter_rows, whole_prompts)
        return self.norm(x, residual)[0]


class LlamaForCausalLM(nn.Cell):
    """Token ids of a batch to float32 logits (R, V) of the rows that are asked for.

    The ranks split the vocabulary: each gives the logits of its part, padded with zeros.

    Args:
        num_positions: rows of the rotary tables; more than a batch ever has tokens, for that is how
            ApplyRotaryPosEmb tells a table from rows gathered by token.
    """

    def __init__(
        self, config: ModelConfig, cache: CacheShape, num_positions: int, dtype: str, shard: Shard = WHOLE
    ) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.model = LlamaModel(config, cache, num_positions, dtype, shard)
        self.tied = config.tie_word_embeddings
        head = {"lm_head": shard.split(config.vocab_size)}
        self.lm_head = Linear(Axis(config.hidden_size), head, dtype, shard=shard, output_dtype="float32")
        self.gather = ops.Gather()

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
        """How the weights that are split lie on the ranks, by Hugging Face name; the others are whole on each."""
        layouts = {"model.embed_tokens.weight": self.model.embed_tokens.layout}
        for linear in self.linears() if self.tied else [*self.linears(), self.lm_head]:
            layouts |= linear.weight_layouts() | linear.bias_layouts()
        return layouts

    def caches(self) -> list[np.ndarray]:
        """The keys and the values of each layer (num_blocks, ...), in the memory where they are."""
        return [cache for layer in self.model.layers for cache in layer.self_attn.cache_memory]

    def load(self, source: WeightSource) -> None:
        """Takes the weights; a tensor that is missing or that nothing takes is a ModelError."""
        self.model.load(source)
        if self.tied:
            self.lm_head.tie(self.model.embed_tokens.memory)
        else:
            self.lm_head.load(source)
        # Some tools save what is derived: rotary frequencies, the tied head.
        derived = ("rotary_emb.inv_freq", "lm_head.weight") if self.tied else ("rotary_emb.inv_freq",)
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
