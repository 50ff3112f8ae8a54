"""The engine's limits name what is wrong with them."""

import pytest

from mindgen.engine.config import EngineConfig
from mindgen.errors import ConfigError


@pytest.mark.parametrize(
    "field", ["block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "max_waiting"]
)
def test_configuration_names_the_bad_field(field):
    with pytest.raises(ConfigError, match=f"{field} must be at least 1, not 0"):
        EngineConfig(**{field: 0})
    with pytest.raises(ConfigError, match="memory_utilization must be above 0"):
        EngineConfig(memory_utilization=1.5)
