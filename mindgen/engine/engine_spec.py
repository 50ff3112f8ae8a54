"""What an engine is made for."""

from dataclasses import dataclass

from mindgen.engine.engine_config import EngineConfig
from mindgen.weights.model_config import ModelConfig


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A model, and the limits within which it is served.

    Attributes:
        dtype: of weights, KV cache and hidden states.
    """

    model: ModelConfig
    dtype: str
    config: EngineConfig

    @property
    def max_model_len(self) -> int:
        """The longest sequence, in tokens.

        Raises:
            ConfigError: as of EngineConfig.longest_sequence.
        """
        return self.config.longest_sequence(self.model.max_position)
