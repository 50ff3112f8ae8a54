"""What the generator tells the trainer: answers, how likely their tokens were, and what they are worth."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One of a prompt's.

    Attributes:
        logprobs: of each token in the distribution that it was drawn from.
        base_logprobs: of each token by the base model.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    base_logprobs: list[float]
    reward: float


@dataclass(frozen=True, slots=True)
class Group:
    """The answers to one prompt."""

    prompt_ids: list[int]
    answers: list[Answer]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one gradient step learns from.

    Attributes:
        adapter_version, adapter_digest: of the policy that has answered, as the answers themselves say.
    """

    groups: list[Group]
    adapter_version: int
    adapter_digest: str

    def rewards(self) -> list[list[float]]:
        return [[answer.reward for answer in group.answers] for group in self.groups]

    def num_tokens(self) -> int:
        """That were generated."""
        return sum(len(answer.token_ids) for group in self.groups for answer in group.answers)
