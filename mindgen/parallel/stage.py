"""Pipeline stages: each has consecutive layers of a network, and hands its hidden states on to the next."""

from dataclasses import dataclass
from typing import NamedTuple

from mindgen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Stage:
    """One of `count` stages: the first has the embedding as well, the last the final norm and the head."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def is_last(self) -> bool:
        return self.index == self.count - 1

    def layers(self, num_layers: int) -> range:
        """Of so many those that are the stage's: the first stages have one more where they do not divide."""
        share, rest = divmod(num_layers, self.count)
        first = self.index * share + min(self.index, rest)
        return range(first, first + share + (self.index < rest))


ONLY_STAGE = Stage()


def pipeline_stages(count: int, num_layers: int) -> list[Stage]:
    """The stages of a network.

    Raises:
        ConfigError: there are more than layers.
    """
    if count > num_layers:
        raise ConfigError(
            f"engine: pipeline_parallel_size is {count}, but the model has {num_layers} layers: "
            "every stage needs one at least"
        )
    return [Stage(index, count) for index in range(count)]


class PipelineShape(NamedTuple):
    """How many stages there are, of how many ranks each, and how much goes between them in a step at most.

    Attributes:
        dtype: of hidden states.
    """

    num_stages: int = 1
    ranks_per_stage: int = 1
    hidden_bytes: int = 0
    logits_bytes: int = 0
    dtype: str = "float32"

    @property
    def num_ranks(self) -> int:
        return self.num_stages * self.ranks_per_stage

    def place_of(self, rank: int) -> tuple[Stage, int]:
        """A rank's stage, and its number there."""
        index, own = divmod(rank, self.ranks_per_stage)
        return Stage(index, self.num_stages), own


ONE_RANK = PipelineShape()
