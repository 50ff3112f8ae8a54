"""What files of GGUF call the tensors and settings of a model, as its Architecture tells."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError, ModelError
from mindgen.system.checks import shown
from mindgen.weights.gguf_metadata import typed_value
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.tensor_names import EMBEDDING, HEAD

ROPE_FACTORS = "rope_freqs.weight"
LAYERS = "blk."
# Of the model's settings those that change its arithmetic, and what leaves that as it is.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "attention.scale": (),
    "attention.clamp_kqv": (0.0,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (1.0,),
    "embedding_scale": (1.0,),
    "residual_scale": (1.0,),
    "rope.scaling.attn_factor": (1.0,),
    "use_parallel_residual": (False,),
    "tensor_data_layout": ("reference",),
}


class GgufSettings:
    """The settings of one architecture in a file's metadata.

    Raises:
        ModelError: one asks for what is not served.
    """

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata, self._architecture = metadata, architecture
        for key, neutral in _NEUTRAL.items():
            found = self._find(key)
            if found is not None and found not in neutral:
                raise ModelError(f"GGUF: {architecture}.{key} {shown(found)} is not served")

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Of type int, float or str, as `kind` says; raises ModelError if it is of another one."""
        name = f"{self._architecture}.{key}"
        found = typed_value({name: self._find(key)}, name, kind)
        return default if found is None else found

    def _find(self, key: str) -> Any:
        found = self._metadata.get(f"{self._architecture}.{key}")
        if isinstance(found, np.ndarray):  # one for each layer
            if found.size == 0 or np.any(found != found[0]):
                raise ModelError(f"GGUF: {self._architecture}.{key} differs among the layers, which is not served")
            return found[0].item()
        return found

    def need(self, key: str, kind: type) -> Any:
        found = self.get(key, kind)
        if found is None:
            raise ModelError(f"GGUF: the file has no {self._architecture}.{key}")
        return found


@dataclass(frozen=True, slots=True)
class GgufNames:
    """One architecture's.

    Attributes:
        architecture: its general.architecture.
        read_config: what stands in config.json, of its settings and the names of its tensors.
        write_config: the settings of a model of that shape; raises ModelError for what they cannot tell.
        tables: modules before and behind the layers, in GGUF and in the network.
        layers: what the names of a layer's modules begin with in the network, before its number.
        modules: of a layer.
        permuted: modules of which each head's rows are pairs, where the network has halves; and the setting that
            counts their heads.
        fused: modules whose rows are those of several.
        dropped: tensors that read_config has read.
        plain: modules whose matrices llama.cpp keeps in float32.
    """

    architecture: str
    read_config: Callable[[GgufSettings, Collection[str]], dict[str, Any]]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    tables: Mapping[str, str]
    layers: str
    modules: Mapping[str, str]
    permuted: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()

    def find(self, name: str) -> tuple[str, str, str] | None:
        """What the network's name of a tensor begins with, the module in GGUF, and the kind (weight or bias).

        None for a tensor that is known to be none of its.
        """
        module, _, kind = name.rpartition(".")
        if name in self.dropped:
            return None
        if module.startswith(LAYERS):
            number, _, module = module.removeprefix(LAYERS).partition(".")
            return f"{self.layers}{number}.", module, kind
        return "", module, kind


def halves_of_pairs(num_rows: int, num_heads: int) -> np.ndarray:
    """Where in the file each row of a permuted module is: of a head, first the first ones of all pairs, then the
    second ones.

    Raises:
        CheckpointError: the rows do not divide.
    """
    if num_heads < 1 or num_rows % (2 * num_heads):
        raise CheckpointError(f"GGUF: {num_rows} rows do not divide into pairs of {num_heads} heads")
    rows = np.arange(num_rows).reshape(num_heads, -1, 2)  # head, pair, which of the pair
    return rows.swapaxes(1, 2).reshape(-1)


def llama_settings(settings: GgufSettings, tensors: Collection[str]) -> dict[str, Any]:
    """config.json of a model like Llama, but for its names."""
    num_heads, hidden = settings.need("attention.head_count", int), settings.need("embedding_length", int)
    head_size = settings.get("attention.key_length", int, hidden // max(1, num_heads))
    if settings.get("attention.value_length", int, head_size) != head_size:
        raise ModelError("GGUF: keys and values of different lengths are not served")
    rotary_size = settings.get("rope.dimension_count", int, head_size)
    config = {
        "hidden_size": hidden,
        "intermediate_size": settings.need("feed_forward_length", int),
        "num_hidden_layers": settings.need("block_count", int),
        "num_attention_heads": num_heads,
        "num_key_value_heads": settings.get("attention.head_count_kv", int, num_heads),
        "head_dim": head_size,
        "max_position_embeddings": settings.need("context_length", int),
        "rms_norm_eps": settings.need("attention.layer_norm_rms_epsilon", float),
        "rope_theta": settings.get("rope.freq_base", float, 10000.0),
        "attention_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in tensors,
        "sliding_window": settings.get("attention.sliding_window", int),
        "partial_rotary_factor": rotary_size / head_size if head_size else 1.0,
    }
    linear = settings.get("rope.scale_linear", float)
    scaling = settings.get("rope.scaling.type", str, "linear" if linear else "none")
    if scaling != "none":
        factor = settings.get("rope.scaling.factor", float, linear)
        config["rope_scaling"] = {"rope_type": scaling, "factor": factor}
    return config


def llama_metadata(config: ModelConfig) -> dict[str, Any]:
    """The settings of a model like Llama; factors of its rotary frequencies are a tensor, ROPE_FACTORS."""
    assert config.rope is not None
    settings: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_size,
        "attention.value_length": config.head_size,
        "attention.layer_norm_rms_epsilon": config.norm_epsilon,
        "rope.dimension_count": config.head_size,
        "rope.freq_base": float(config.rope.theta),
    }
    if config.rope.kind == "linear":
        settings |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(config.rope.factor)}
    return settings


LLAMA_GGUF = GgufNames(
    architecture="llama",
    read_config=llama_settings,
    write_config=llama_metadata,
    tables={"token_embd": EMBEDDING, "output_norm": "model.norm", "output": HEAD},
    layers="model.layers.",
    modules={
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    },
    permuted={"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"},
    dropped=frozenset({ROPE_FACTORS}),
)
