"""What networks and their layers are declared by."""

from dataclasses import dataclass

from mindgen.parallel.layout import WHOLE, Axis, Shard
from mindgen.parallel.stage import ONLY_STAGE, Stage
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.model_config import ModelConfig


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What a linear or an embedding maps.

    Attributes:
        inputs: features, or the tokens of a vocabulary.
        parts: the Hugging Face module names whose outputs lie side by side, with their axes, which are split alike.
        dtype: of the weights.
    """

    inputs: Axis
    parts: dict[str, Axis]
    dtype: str
    shard: Shard = WHOLE

    @property
    def cuts_in(self) -> int:
        """Into how many slices MindSpore's compiler cuts the inputs."""
        return self.shard.cuts(self.inputs)

    @property
    def cuts_out(self) -> int:
        """The same of the outputs."""
        return self.shard.cuts(next(iter(self.parts.values())))


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What a network is built from.

    Attributes:
        num_positions: rows of the rotary tables; more than a batch ever has tokens, for that is how
            ApplyRotaryPosEmb tells a table from rows gathered by token.
        shard, stage: which part of it is in this process.
    """

    config: ModelConfig
    cache: CacheShape
    num_positions: int
    dtype: str
    shard: Shard = WHOLE
    stage: Stage = ONLY_STAGE

    def layers(self) -> range:
        """The stage's."""
        return self.stage.layers(self.config.num_layers)

    def linear(self, inputs: Axis, parts: dict[str, Axis]) -> LayerSpec:
        """A linear of the network, in its dtype and on its ranks."""
        return LayerSpec(inputs, parts, self.dtype, self.shard)
