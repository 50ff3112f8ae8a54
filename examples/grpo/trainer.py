"""One gradient step on the policy's adapter for each batch of answers."""

import time
from dataclasses import dataclass
from typing import Any

import mindspore
import numpy as np
from mindspore import Tensor, nn

from grpo.objective import Given, clipped_loss, group_advantages
from grpo.packing import PackedGroup, PackedSize, pack, padded
from grpo.policy import LoraSettings, Policy
from grpo.settings import LoopSettings
from grpo.trajectories import Batch, Group
from mindgen.errors import MindgenError
from mindgen.runner.device import open_device

# How far the engine's log-probabilities may be from the trainer's: as far as rounding makes those of the same weights.
LARGEST_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.5}

_NUM_PACKED = len(PackedGroup._fields)


class StaleWeightsError(MindgenError):
    """The answers are not from the weights that the trainer has."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """
    Attributes:
        loss: before the step, the mean of all groups' answers.
        difference: the largest between the trainer's log-probability of a token and the engine's.
        seconds: of the step.
    """

    loss: float
    difference: float
    seconds: float


class Trainer:
    """Has the policy, and improves it by Adam.

    Args:
        longest_prompt: in tokens.
    """

    def __init__(self, settings: LoopSettings, lora: LoraSettings, longest_prompt: int) -> None:
        open_device("CPU", 0, 1)
        self._settings = settings
        num_positions = longest_prompt + settings.max_tokens
        self.policy = Policy(settings.model, settings.dtype, lora, num_positions, settings.seed)
        self._size = PackedSize.of(longest_prompt, settings.group_size, settings.max_tokens)
        self._optimizer = nn.Adam(self.policy.parameters, learning_rate=settings.learning_rate)
        differentiated = mindspore.value_and_grad(self._loss, None, self.policy.parameters, has_aux=True)
        self._gradients = mindspore.jit(differentiated, backend="ms_backend", jit_level="O0")

    def step(self, batch: Batch) -> TrainingReport | None:
        """None where no group has signal: where all answers to a prompt are worth the same, none is to be preferred.

        Raises:
            StaleWeightsError: the answers are not from the policy as it is; it stays so.
        """
        started = time.perf_counter()
        pairs = zip(batch.groups, group_advantages(batch.rewards()), strict=True)
        trained = [(group, advantages) for group, advantages in pairs if advantages.any()]
        if not trained:
            return None
        loss, differences, total = 0.0, [], None
        for group, advantages in trained:
            (group_loss, logprobs), gradients = self._gradients(*self._inputs(group, advantages))
            loss += float(group_loss.asnumpy())
            differences.append(_largest_difference(group, logprobs.asnumpy()))
            total = gradients if total is None else [sum(pair) for pair in zip(total, gradients, strict=True)]
        difference = float(np.max(differences))  # NaN if there is one
        self._require_fresh(batch, difference)
        num_answers = sum(len(group.answers) for group in batch.groups)
        self._optimizer(tuple(gradient / num_answers for gradient in total))
        return TrainingReport(loss / num_answers, difference, time.perf_counter() - started)

    def _loss(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of a PackedGroup's tensors and a Given's, one by one.

        MindSpore would compile anew for the content of each tuple that is an argument, and has no gradients through
        named tuples that compiled code makes.
        """
        group, given = inputs[:_NUM_PACKED], inputs[_NUM_PACKED:]
        logprobs = self.policy.logprobs(group)
        loss = clipped_loss(logprobs, given, self._settings.clip, self._settings.kl_coefficient)
        return loss, logprobs

    def _inputs(self, group: Group, advantages: np.ndarray) -> tuple[Tensor, ...]:
        answers = group.answers

        def flat(values: Any) -> Tensor:
            """(N,), of as many values for each answer as it has tokens."""
            joined = [value for each in values for value in each]
            return Tensor(padded(joined, self._size.num_targets, np.float32))

        lengths = [len(answer.token_ids) for answer in answers]
        given = Given(
            flat(answer.logprobs for answer in answers),
            flat(answer.base_logprobs for answer in answers),
            flat([advantage] * length for advantage, length in zip(advantages, lengths, strict=True)),
            flat([1 / length] * length for length in lengths),
        )
        return *pack(group.prompt_ids, [answer.token_ids for answer in answers], self._size), *given

    def _require_fresh(self, batch: Batch, difference: float) -> None:
        largest = LARGEST_DIFFERENCE[self._settings.dtype]
        if not difference <= largest:  # which NaN is not, either
            raise StaleWeightsError(
                f"the engine's log-probabilities differ from the trainer's by up to {difference:.2g}, and rounding "
                f"explains {largest:g}: version {batch.adapter_version} of the adapter ({batch.adapter_digest[:12]}), "
                "which has answered, is not what the trainer has; have its weights arrived?"
            )


def _largest_difference(group: Group, logprobs: np.ndarray) -> float:
    old = np.concatenate([answer.logprobs for answer in group.answers])
    return float(np.abs(logprobs[: len(old)] - old).max())
