"""Group relative policy optimization (GRPO, arXiv:2402.03300, section 4.1)."""

from typing import Any, NamedTuple

import numpy as np
from mindspore import Tensor, ops

_LEAST_DEVIATION = 1e-6  # of a group's rewards, which are divided by it


class Given(NamedTuple):
    """What the objective takes as it is, each (N,) in float32, of the tokens of a group's answers and of padding.

    Attributes:
        old_logprobs: when they were drawn.
        base_logprobs: by the base model.
        advantages: of the answers that they belong to.
        shares: 1 / the number of the answer's tokens; 0 for padding.
    """

    old_logprobs: Tensor
    base_logprobs: Tensor
    advantages: Tensor
    shares: Tensor


def group_advantages(rewards: Any) -> np.ndarray:
    """(P, G) to the same: how much better an answer is than the others to its prompt, in their standard deviation."""
    rewards = np.asarray(rewards, np.float64)
    deviations = rewards.std(axis=1, keepdims=True)
    return (rewards - rewards.mean(axis=1, keepdims=True)) / (deviations + _LEAST_DEVIATION)


def clipped_loss(logprobs: Tensor, given: tuple[Tensor, ...], clip: float, kl_coefficient: float) -> Tensor:
    """What is to fall: the negated sum over a group's answers of equation 3, each the mean over its tokens.

    Args:
        logprobs: (N,) by the policy.
        given: a Given's.
        clip: the paper's epsilon.
        kl_coefficient: its beta.
    """
    old, base, advantages, shares = given
    ratios = ops.exp(logprobs - old)
    gains = ops.minimum(ratios * advantages, ops.clamp(ratios, 1 - clip, 1 + clip) * advantages)
    differences = base - logprobs
    divergences = ops.exp(differences) - differences - 1  # equation 4, an estimate of KL(policy || base)
    return -((gains - kl_coefficient * divergences) * shares).sum()
