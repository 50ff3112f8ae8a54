"""GPT-2; parameter names as in Hugging Face, except what its Architecture translates."""

from dataclasses import replace

from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen.layers.adapted import AdapterRows
from mindgen.layers.attention import Attention, StepTensors
from mindgen.layers.linear import Linear
from mindgen.layers.norm import LayerNorm
from mindgen.layers.parameters import WeightSource, split_parameter
from mindgen.layers.spec import NetworkSpec
from mindgen.layers.step_inputs import PLACES
from mindgen.models.base import CausalLm, Decoder
from mindgen.parallel.layout import Axis
from mindgen.weights.tensor_names import POSITIONS

_POSITIONS = PLACES.positions


class Gelu(nn.Cell):
    """With the error function, or with the tangent, which is Ascend's GeLU; its last axis is cut in so many."""

    def __init__(self, is_exact: bool, cuts: int) -> None:
        super().__init__()
        self.is_exact = is_exact
        self.gelu = (gen.GeluExt() if is_exact else ops.GeLU()).shard(((1, cuts),))

    def construct(self, x: Tensor) -> Tensor:
        return self.gelu(x, "none") if self.is_exact else self.gelu(x)


class GPT2Mlp(nn.Cell):
    """c_proj(gelu(c_fc x))"""

    def __init__(self, spec: NetworkSpec, prefix: str) -> None:
        super().__init__()
        config, shard = spec.config, spec.shard
        hidden, inner = Axis(config.hidden_size), shard.split(config.intermediate_size)
        self.c_fc = Linear(spec.linear(hidden, {f"{prefix}.c_fc": inner}), config.mlp_bias)
        self.c_proj = Linear(spec.linear(inner, {f"{prefix}.c_proj": hidden}), config.mlp_bias)
        self.gelu = Gelu(config.exact_gelu, shard.cuts(inner))

    def linears(self) -> list[Linear]:
        return [self.c_fc, self.c_proj]

    def construct(self, x: Tensor, adapter_rows: AdapterRows) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x, adapter_rows)), adapter_rows)


class GPT2Layer(nn.Cell):
    """One decoder layer."""

    def __init__(self, spec: NetworkSpec, prefix: str) -> None:
        super().__init__()
        config, dtype, shard = spec.config, spec.dtype, spec.shard
        self.prefix = prefix
        self.ln_1 = LayerNorm(config.hidden_size, config.norm_epsilon, dtype, shard)
        self.self_attn = Attention(spec, f"{prefix}.attn", output_name="c_proj")
        self.ln_2 = LayerNorm(config.hidden_size, config.norm_epsilon, dtype, shard)
        self.mlp = GPT2Mlp(spec, f"{prefix}.mlp")
        self.add = ops.Add().shard(((1, 1), (1, 1)))

    def linears(self) -> list[Linear]:
        return self.self_attn.linears() + self.mlp.linears()

    def load(self, source: WeightSource) -> None:
        self.ln_1.load(source, f"{self.prefix}.ln_1")
        self.self_attn.load(source)
        self.ln_2.load(source, f"{self.prefix}.ln_2")
        for linear in self.mlp.linears():
            linear.load(source)

    def construct(
        self,
        x: Tensor,
        step: StepTensors,
        paged_mask: Tensor | None,
        adapter_rows: AdapterRows,
        whole_prompts: bool,
    ) -> Tensor:
        """x (T, H) to (T, H)."""
        x = self.add(x, self.self_attn(self.ln_1(x), step, paged_mask, adapter_rows, whole_prompts))
        return self.add(x, self.mlp(self.ln_2(x), adapter_rows))


class GPT2Model(Decoder):
    """Learned positions, which are added to the tokens' embeddings."""

    def __init__(self, spec: NetworkSpec) -> None:
        config, dtype, shard = spec.config, spec.dtype, spec.shard
        layers = [GPT2Layer(spec, f"transformer.h.{index}") for index in spec.layers()]
        norm = LayerNorm(config.hidden_size, config.norm_epsilon, dtype, shard) if spec.stage.is_last else None
        super().__init__(replace(spec, num_positions=config.max_position), layers, norm, "transformer.ln_f")
        if spec.stage.is_first:
            self.positions_layout = shard.layout(Axis(config.max_position), Axis(config.hidden_size))
            self.positions = split_parameter(self.positions_layout, dtype, "positions", shard)
            self.gather = ops.Gather().shard(((1, 1), (1,)))
            self.add = ops.Add().shard(((1, 1), (1, 1)))

    def load(self, source: WeightSource) -> None:
        super().load(source)
        if self.embed_tokens is not None:
            source.fill(self.positions, POSITIONS, self.positions_layout)

    def construct(
        self, step: StepTensors, adapter_rows: AdapterRows, table_rows: tuple[Tensor, ...], whole_prompts: bool
    ) -> Tensor:
        paged_mask = self.mask(step[_POSITIONS])
        x = self.embed(step, adapter_rows, table_rows)
        if self.embed_tokens is not None:
            x = self.add(x, self.gather(self.positions, step[_POSITIONS], 0))  # (T, H)
        for layer in self.layers:
            x = layer(x, step, paged_mask, adapter_rows, whole_prompts)
        return x if self.norm is None else self.norm(x)


class GPT2LMHeadModel(CausalLm):
    """GPT-2, which has as many positions as it was trained with."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec, GPT2Model(spec))
