"""The tensors that the networks ask checkpoints for, by name; as their layers declare them, but without MindSpore."""

from collections.abc import Mapping

from mindgen.weights.model_config import ModelConfig
from mindgen.weights.tensor_names import EMBEDDING, HEAD, POSITIONS

Shapes = dict[str, tuple[int, ...]]


def llama_shapes(config: ModelConfig) -> Shapes:
    """Of models like Llama, with the biases and norms of that configuration."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = _tables(config) | {"model.norm.weight": (hidden,)}
    mlp = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= _attention(config, f"{prefix}.self_attn", "o_proj")
        shapes |= _linears({f"{prefix}.mlp.{name}": shape for name, shape in mlp.items()}, config.mlp_bias)
        if config.query_key_norm:
            shapes |= {f"{prefix}.self_attn.{norm}.weight": (config.head_size,) for norm in ("q_norm", "k_norm")}
    return shapes


def gpt2_shapes(config: ModelConfig) -> Shapes:
    """Of GPT-2, with its linears as its translation gives them."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = _tables(config) | {POSITIONS: (config.max_position, hidden)} | _norm("transformer.ln_f", hidden)
    for layer in range(config.num_layers):
        prefix = f"transformer.h.{layer}"
        shapes |= _norm(f"{prefix}.ln_1", hidden) | _norm(f"{prefix}.ln_2", hidden)
        shapes |= _attention(config, f"{prefix}.attn", "c_proj")
        mlp = {f"{prefix}.mlp.c_fc": (inner, hidden), f"{prefix}.mlp.c_proj": (hidden, inner)}
        shapes |= _linears(mlp, config.mlp_bias)
    return shapes


def _tables(config: ModelConfig) -> Shapes:
    names = [EMBEDDING] if config.tie_word_embeddings else [EMBEDDING, HEAD]
    return {f"{name}.weight": (config.vocab_size, config.hidden_size) for name in names}


def _attention(config: ModelConfig, prefix: str, output: str) -> Shapes:
    hidden, queries = config.hidden_size, config.num_heads * config.head_size
    keys = config.num_kv_heads * config.head_size
    inputs = {"q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden)}
    shapes = _linears({f"{prefix}.{name}": shape for name, shape in inputs.items()}, config.qkv_bias)
    return shapes | _linears({f"{prefix}.{output}": (hidden, queries)}, config.output_bias)


def _linears(weights: Mapping[str, tuple[int, int]], has_bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": shape for name, shape in weights.items()}
    return shapes | ({f"{name}.bias": shape[:1] for name, shape in weights.items()} if has_bias else {})


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.{kind}": (size,) for kind in ("weight", "bias")}
