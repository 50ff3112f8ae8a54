"""Self-attention over a paged KV cache."""

from typing import TypeAlias

from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.adapted import AdapterRows
from mindgen.layers.causal_mask import prompt_mask
from mindgen.layers.device_rows import zeros_parameter
from mindgen.layers.inference_ops import inference_ops
from mindgen.layers.linear import AlreadySplit, Linear, packed_linear
from mindgen.layers.norm import RmsNorm
from mindgen.layers.parameters import WeightSource
from mindgen.layers.rotary import HalvesOfPairs
from mindgen.layers.spec import NetworkSpec
from mindgen.layers.step_inputs import PLACES
from mindgen.parallel.layout import Axis, TensorLayout
from mindgen.weights.architecture import architectures

# A StepInputs, to MindSpore's compiler.
StepTensors: TypeAlias = tuple[Tensor, ...]
# cos, sin (T, D) of each token, or the full tables for whole prompts.
Rotation: TypeAlias = tuple[Tensor, Tensor]


_CONTEXT_LENS, _Q_SEQ_LENS, _Q_SEQ_ENDS = PLACES.context_lens, PLACES.q_seq_lens, PLACES.q_seq_ends
_SLOT_MAPPING, _BLOCK_TABLES = PLACES.slot_mapping, PLACES.block_tables


class Attention(nn.Cell):
    """Projects to queries, keys and values, rotates them if told to, writes the cache, attends, projects back.

    Whole prompts go through FlashAttentionScore, everything else (decoding, chunks of prompts, prompts with a
    cached prefix) through PagedAttention; both are causal.
    """

    def __init__(self, spec: NetworkSpec, prefix: str, output_name: str = "o_proj") -> None:
        super().__init__()
        config, dtype, shard = spec.config, spec.dtype, spec.shard
        queries, keys = shard.split_heads(config.num_heads, config.num_kv_heads, config.head_size)
        self.sizes = (shard.size(queries), shard.size(keys), shard.size(keys))
        self.num_heads = self.sizes[0] // config.head_size
        self.num_kv_heads = self.sizes[1] // config.head_size
        self.head_size = config.head_size
        self.prefix = prefix
        hidden = Axis(config.hidden_size)
        qkv = {f"{prefix}.q_proj": queries, f"{prefix}.k_proj": keys, f"{prefix}.v_proj": keys}
        self.qkv_proj = packed_linear(spec.linear(hidden, qkv), config.qkv_bias)
        self.o_proj = Linear(spec.linear(queries, {f"{prefix}.{output_name}": hidden}), config.output_bias)
        self.has_norm = config.query_key_norm
        if self.has_norm:
            cuts = (1, shard.cuts(queries), 1)
            self.q_norm = RmsNorm(config.head_size, config.norm_epsilon, dtype, shard, cuts)
            self.k_norm = RmsNorm(config.head_size, config.norm_epsilon, dtype, shard, cuts)

        self.is_interleaved = config.rope is not None and config.rope.interleaved
        if self.is_interleaved:
            self.halves_of_pairs = HalvesOfPairs(config.head_size, shard.cuts(queries))

        axes, _ = architectures()[config.architecture].cache_layout(config, shard).arrays
        self.cache_layout = shard.layout(Axis(spec.cache.num_blocks), Axis(spec.cache.block_size), *axes)
        self.key_cache, key_memory = zeros_parameter(self.cache_layout, dtype, "key_cache", shard)
        self.value_cache, value_memory = zeros_parameter(self.cache_layout, dtype, "value_cache", shard)
        self.cache_memory: list[RowMemory] = [key_memory, value_memory]
        self.prompt_mask = prompt_mask(dtype)

        scale = config.head_size**-0.5
        served = inference_ops(self.num_heads, self.num_kv_heads, scale, dtype, shard)
        self.apply_rotary = served.apply_rotary
        self.reshape_and_cache = served.reshape_and_cache
        self.paged_attention = served.paged_attention
        self.flash_attention = gen.FlashAttentionScore(
            head_num=self.num_heads, scale_value=scale, input_layout="TH", sparse_mode=0
        )
        by_heads = (1, shard.cuts(queries))
        self.flash_attention.shard((by_heads, by_heads, by_heads, (1, 1), (1,), (1,)))
        self.split = AlreadySplit() if shard.sliced_by_compiler else gen.SplitWithSize()
        self.reshape = ops.Reshape()
        self.depend = ops.Depend()

    def linears(self) -> list[Linear]:
        return [*self.qkv_proj.linears(), self.o_proj]

    def cache_layouts(self) -> dict[str, TensorLayout]:
        """By the names of MindSpore's parameters."""
        return {self.key_cache.name: self.cache_layout, self.value_cache.name: self.cache_layout}

    def load(self, source: WeightSource) -> None:
        for linear in self.linears():
            linear.load(source)
        if self.has_norm:
            self.q_norm.load(source, f"{self.prefix}.q_norm")
            self.k_norm.load(source, f"{self.prefix}.k_norm")

    def construct(
        self,
        x: Tensor,
        step: StepTensors,
        paged_mask: Tensor | None,
        adapter_rows: AdapterRows,
        whole_prompts: bool,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """x (T, H) to (T, H).

        paged_mask: (T, N) of PagedMask; None on the CPU.
        """
        context_lens = step[_CONTEXT_LENS]
        query, key, value = self.split(self.qkv_proj(x, adapter_rows), self.sizes, 1)
        if self.has_norm:
            query = self._norm_heads(self.q_norm, query, self.num_heads)
            key = self._norm_heads(self.k_norm, key, self.num_kv_heads)
        if self.is_interleaved:
            query = self.halves_of_pairs(query, self.num_heads)
            key = self.halves_of_pairs(key, self.num_kv_heads)
        if rotation is not None:
            query, key = self.apply_rotary(query, key, rotation[0], rotation[1], context_lens)
        written = self.reshape_and_cache(key, value, self.key_cache, self.value_cache, step[_SLOT_MAPPING])
        query = self.depend(query, written)
        if whole_prompts:
            mask, ends = self.prompt_mask, step[_Q_SEQ_ENDS]
            attended = self.flash_attention(query, key, value, None, None, None, mask, None, ends, ends)[3]
        else:
            attended = self.paged_attention(
                query, self.key_cache, self.value_cache, step[_BLOCK_TABLES], context_lens, None, None, paged_mask,
                step[_Q_SEQ_LENS],
            )  # fmt: skip
        return self.o_proj(attended, adapter_rows)

    def _norm_heads(self, norm: RmsNorm, x: Tensor, num_heads: int) -> Tensor:
        heads = self.reshape(x, (-1, num_heads, self.head_size))  # (T, heads, D)
        return self.reshape(norm(heads)[0], (-1, num_heads * self.head_size))  # (T, heads*D)
