"""What a run of the loop may choose."""

from dataclasses import dataclass

from mindgen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """
    Attributes:
        model, dtype: as LLM takes them.
        task: of tasks.py.
        prompts_per_step, group_size: so many prompts a step, and answers to each.
        max_tokens: of an answer; each is drawn from the policy's whole distribution, at temperature 1.
        learning_rate: Adam's.
        clip: how far the ratio of new to old probability may be from 1 before its gradient ends.
        kl_coefficient: what the distance from the base model costs.
        seed: of prompts, answers and the first A.

    Raises:
        ConfigError: a value is out of its range.
    """

    model: str = "smollm2"
    dtype: str = "float32"
    task: str = "json"
    prompts_per_step: int = 4
    group_size: int = 8
    max_tokens: int = 24
    learning_rate: float = 2e-3
    clip: float = 0.2
    kl_coefficient: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"prompts_per_step": 1, "group_size": 2, "max_tokens": 1, "seed": 0, "kl_coefficient": 0.0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ConfigError(f"{name} must be at least {value}, not {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
