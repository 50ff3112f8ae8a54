"""Llama 2 and 3, Qwen2 (a bias on q, k and v) and Qwen3 (a norm on q and k); parameter names as in Hugging Face."""

from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen.kernels import dtypes
from mindgen.layers.activation import SeparateSwiglu
from mindgen.layers.adapted import AdapterRows
from mindgen.layers.attention import Attention, Rotation, StepTensors
from mindgen.layers.linear import Linear, packed_linear
from mindgen.layers.norm import RmsNorm
from mindgen.layers.parameters import WeightSource, filled_parameter
from mindgen.layers.rotary import rotary_tables
from mindgen.layers.spec import NetworkSpec
from mindgen.layers.step_inputs import PLACES
from mindgen.models.base import CausalLm, Decoder
from mindgen.parallel.layout import Axis

_POSITIONS = PLACES.positions


class LlamaMlp(nn.Cell):
    """down(silu(gate x) * up x)"""

    def __init__(self, spec: NetworkSpec, prefix: str) -> None:
        super().__init__()
        config, shard = spec.config, spec.shard
        hidden, inner = Axis(config.hidden_size), shard.split(config.intermediate_size)
        gate_up = {f"{prefix}.gate_proj": inner, f"{prefix}.up_proj": inner}
        self.gate_up_proj = packed_linear(spec.linear(hidden, gate_up), config.mlp_bias)
        self.down_proj = Linear(spec.linear(inner, {f"{prefix}.down_proj": hidden}), config.mlp_bias)
        self.swiglu = SeparateSwiglu(shard.cuts(inner)) if shard.sliced_by_compiler else gen.Swiglu()

    def linears(self) -> list[Linear]:
        return [*self.gate_up_proj.linears(), self.down_proj]

    def construct(self, x: Tensor, adapter_rows: AdapterRows) -> Tensor:
        gated = self.swiglu(self.gate_up_proj(x, adapter_rows), -1)  # (T, 2*inner) -> (T, inner)
        return self.down_proj(gated, adapter_rows)


class LlamaLayer(nn.Cell):
    """One decoder layer; the residual addition of its MLP happens in the next norm."""

    def __init__(self, spec: NetworkSpec, prefix: str) -> None:
        super().__init__()
        config, dtype, shard = spec.config, spec.dtype, spec.shard
        self.prefix = prefix
        self.input_layernorm = RmsNorm(config.hidden_size, config.norm_epsilon, dtype, shard)
        self.self_attn = Attention(spec, f"{prefix}.self_attn")
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.norm_epsilon, dtype, shard)
        self.mlp = LlamaMlp(spec, f"{prefix}.mlp")

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
        rotation: Rotation,
        step: StepTensors,
        paged_mask: Tensor | None,
        adapter_rows: AdapterRows,
        whole_prompts: bool,
    ) -> tuple[Tensor, Tensor]:
        """x, residual (T, H) to the same; the first layer has no residual yet."""
        x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(x, step, paged_mask, adapter_rows, whole_prompts, rotation)
        x, residual = self.post_attention_layernorm(x, residual)
        return self.mlp(x, adapter_rows), residual


class LlamaModel(Decoder):
    """Rotary positions; the last residual addition happens in the final norm."""

    def __init__(self, spec: NetworkSpec) -> None:
        config, dtype, shard = spec.config, spec.dtype, spec.shard
        layers = [LlamaLayer(spec, f"model.layers.{index}") for index in spec.layers()]
        norm = RmsNorm(config.hidden_size, config.norm_epsilon, dtype, shard) if spec.stage.is_last else None
        super().__init__(spec, layers, norm, "model.norm")
        self.add = ops.Add()
        assert config.rope is not None
        cos, sin = rotary_tables(config.rope, config.head_size, spec.num_positions)
        self.cos = filled_parameter(dtypes.from_float32(cos, dtype), dtype, "cos")
        self.sin = filled_parameter(dtypes.from_float32(sin, dtype), dtype, "sin")
        self.gather = ops.Gather().shard(((1, 1), (1,)))

    def construct(
        self, step: StepTensors, adapter_rows: AdapterRows, table_rows: tuple[Tensor, ...], whole_prompts: bool
    ) -> Tensor:
        positions = step[_POSITIONS]
        cos, sin = self.cos, self.sin  # (num_positions, D)
        if not whole_prompts:
            cos, sin = self.gather(cos, positions, 0), self.gather(sin, positions, 0)  # (T, D)
        paged_mask = self.mask(positions)
        x, residual = self.embed(step, adapter_rows, table_rows), None
        for layer in self.layers:
            x, residual = layer(x, residual, (cos, sin), step, paged_mask, adapter_rows, whole_prompts)
        return self.add(x, residual) if self.norm is None else self.norm(x, residual)[0]


class LlamaForCausalLM(CausalLm):
    """Llama, and what differs from it by its sizes, biases and norms only."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec, LlamaModel(spec))
