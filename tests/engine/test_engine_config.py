"""The engine's limits name what is wrong with them."""

import pytest

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError


@pytest.mark.parametrize(
    "field", ["block_size", "num_blocks", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "max_waiting"]
)
def test_configuration_names_the_bad_field(field):
    with pytest.raises(ConfigError, match=f"{field} must be at least 1, not 0"):
        EngineConfig(**{field: 0})
    with pytest.raises(ConfigError, match="memory_utilization must be above 0"):
        EngineConfig(memory_utilization=1.5)


def test_longer_sequences_than_the_model_was_made_for_are_refused():
    assert EngineConfig().longest_sequence(512) == EngineConfig(max_model_len=512).longest_sequence(512) == 512
    assert EngineConfig(max_model_len=513).longest_sequence(512) == 513  # the last token of an output has no position
    expected = r"max_model_len \(514\) is more than the 512 positions that the model was made for: lower it to that"
    with pytest.raises(ConfigError, match=expected):
        EngineConfig(max_model_len=514).longest_sequence(512)
    with pytest.raises(ConfigError, match=r"raise max_num_batched_tokens \(511\) to max_model_len \(512\)"):
        EngineConfig(enable_chunked_prefill=False, max_num_batched_tokens=511).longest_sequence(512)
