"""The shape of a model, whatever its architecture."""

from dataclasses import dataclass, replace
from pathlib import Path

from mindgen.errors import warn


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding: its base, and how its frequencies are stretched ("default", "linear", "llama3",
    "factors").

    Attributes:
        factors: by which each of the frequencies is divided.
        original_max_position: how many positions the model had before they were stretched.
        rotated_share: how much of each head is rotated.
        interleaved: whether what is rotated together lies side by side in a head, and not half a head apart.
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position: int = 1
    factors: tuple[float, ...] = ()
    rotated_share: float = 1.0
    interleaved: bool = False

    def rotated_size(self, head_size: int) -> int:
        """How many of a head's dimensions are rotated; of those half a head apart, half of them at either place."""
        return int(head_size * self.rotated_share)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the networks differ in; all sizes in elements.

    Attributes:
        dtype: what config.json says that the weights have; None if it does not.
        gated_mlp: whether it has three linears, gate, up and down, or two.
        rope: None where positions are learned.
        eos_token_ids: all within the vocabulary.
        exact_gelu: whether a GELU is the one with the error function, and not that with the tangent.
    """

    architecture: str
    dtype: str | None
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_position: int
    norm_epsilon: float
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    gated_mlp: bool
    query_key_norm: bool
    rope: RopeConfig | None
    eos_token_ids: tuple[int, ...]
    exact_gelu: bool = False


def settle_head(config: ModelConfig, where: Path, has_own_head: bool) -> ModelConfig:
    """As transformers does: where config.json ties a head that the checkpoint has apart, the checkpoint is right."""
    if not (config.tie_word_embeddings and has_own_head):
        return config
    warn_of_own_head(where)
    return replace(config, tie_word_embeddings=False)


def warn_of_own_head(where: Path) -> None:
    warn(
        f"{where}: config.json ties the head to the embedding, but the checkpoint has both, and they differ: its "
        "lm_head.weight is used"
    )
