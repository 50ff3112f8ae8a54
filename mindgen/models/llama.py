"""Llama 2 and 3, Qwen2 (a bias on q, k and v) and Qwen3 (a norm on q and k); parameter names as in Hugging Face."""

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen import dtypes
from mindgen.errors import ModelError
from mindgen.layers.activation import SeparateSwiglu
from mindgen.layers.attention import Attention, CacheShape, StepInputs
from mindgen.layers.embedding import Embedding
from mindgen.layers.linear import Linear, packed_linear
from mindgen.layers.norm import RmsNorm
from mindgen.layers.parameters import WeightSource, filled_parameter, split_parameter
from mindgen.layers.rotary import rotary_tables
from mindgen.model_config import ModelConfig
from mindgen.parallel.layout import WHOLE, Axis, Shard, TensorLayout


class LlamaMlp(nn.Cell):
    """down(silu(gate x) * up x)"""

    def __init__(self, config: ModelConfig, prefix: str, dtype: str, shard: Shard) -> None:
        super().__init__()
        hidden, inner = Axis(config.hidden_size), shard.split(config.intermediate_size)
        gate_up = {f"{prefix}.gate_proj": inner, f"{prefix}.up_proj": inner}
        self.gate_up_proj = packed_linear(hidden, gate_up, dtype, config.mlp_bias, shard)
        self.down_proj = Linear(inner, {f"{prefix}.down_proj": hidden}, dtype, config.mlp_bias, shard)
        self.swiglu = SeparateSwiglu(shard.cuts(inner)) if shard.sliced_by_compiler else gen.Swiglu()

    def linears(self) -> list[Linear]:
        return [*self.gate_up_proj.linears(), self.down_proj]

    def construct(self, x: Tensor, segment_ends: tuple[Tensor, ...]) -> Tensor:
        gated = self.swiglu(self.gate_up_proj(x, segment_ends), -1)  # (T, 2*inner) -> (T, inner)
        return self.down_proj(gated, segment_ends)


class LlamaLayer(nn.Cell):
    """One decoder layer; the residual addition of its MLP happens in the next norm."""

    def __init__(self, config: ModelConfig, cache: CacheShape, prefix: str, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.prefix = prefix
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps, dtype, shard)
        self.self_attn = Attention(config, cache, f"{prefix}.self_attn", dtype, shard)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps, dtype, shard)
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
        segment_ends: tuple[Tensor, ...],
        whole_prompts: bool,
    ) -> tuple[Tensor, Tensor]:
        """x, residual (T, H) to the same; the first layer has no residual yet."""
        x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(x, step, segment_ends, whole_prompts)
        x, residual = self.post_attention_layernorm(x, residual)
        return self.mlp(x, segment_ends), residual


class LlamaModel(nn.Cell):
    """Embedding, layers and final norm."""

    def __init__(self, config: ModelConfig, cache: CacheShape, num_positions: int, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, dtype, shard)
        self.layers = nn.CellList(
            [LlamaLayer(config, cache, f"model.layers.{index}", dtype, shard) for index in range(config.num_layers)]
        )
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps, dtype, shard)
        cos, sin = rotary_tables(config.rope, config.head_size, num_positions)
        self.cos = filled_parameter(dtypes.from_float32(cos, dtype), dtype, "cos")
        self.sin = filled_parameter(dtypes.from_float32(sin, dtype), dtype, "sin")
        self.gather = ops.Gather().shard(((1, 1), (1,)))

    def load(self, source: WeightSource) -> None:
        self.embed_tokens.load(source, "model.embed_tokens")
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
        segment_ends: tuple[Tensor, ...],
        whole_prompts: bool,
    ) -> Tensor:
        cos, sin = self.cos, self.sin  # (num_positions, D)
        if not whole_prompts:
            cos, sin = self.gather(cos, positions, 0), self.gather(sin, positions, 0)  # (T, D)
        step = (cos, sin, slot_mapping, block_tables, context_lens, q_seq_lens, q_seq_ends)
        x, residual = self.embed_tokens(input_ids), None
        for layer in self.layers:
            x, residual = layer(x, residual, step, segment_ends, whole_prompts)
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
        if not self.tied:
            self.lm_head = split_parameter(self.model.embed_tokens.layout, dtype, "lm_head.weight", shard)
        self.gather = ops.Gather().shard(((1, 1), (1,)))
        self.matmul = ops.MatMul(transpose_b=True).shard(((1, 1), self.model.embed_tokens.cuts))
        self.cast = ops.Cast().shard(((1, 1),))  # all ranks get all logits

    def linears(self) -> list[Linear]:
        """Every linear that adapters can target."""
        return [linear for layer in self.model.layers for linear in layer.linears()]

    def layouts(self) -> dict[str, TensorLayout]:
        """How the weights that are split lie on the ranks, by Hugging Face name; the others are whole on each."""
        embedding = self.model.embed_tokens.layout
        layouts = {"model.embed_tokens.weight": embedding}
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
