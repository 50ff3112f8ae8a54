"""Answers by the policy as it is served, with what a trainer must know of them."""

import time
from dataclasses import dataclass

import numpy as np

from grpo.settings import LoopSettings
from grpo.tasks import TASKS
from grpo.trajectories import Answer, Batch, Group
from mindgen import LLM, SamplingParams
from mindgen.errors import ConfigError, MindgenError
from mindgen.outputs import RequestOutput
from mindgen.rlhf import score

POLICY = "policy"  # the adapter's name


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """
    Attributes:
        tokens_per_second: generated; the base model's log-probabilities take part of the time.
        divergence: an estimate of KL(policy || base) for each token, the mean of the sampled log ratios.
    """

    seconds: float
    tokens_per_second: float
    divergence: float


class Generator:
    """Asks the served model for groups of answers.

    Attributes:
        longest_prompt: in tokens.

    Raises:
        ConfigError: there are not as many prompts as a step wants.
    """

    def __init__(self, llm: LLM, settings: LoopSettings) -> None:
        self._llm, self._settings = llm, settings
        self._task = TASKS[settings.task]
        self._prompts = self._task.prompts(llm)
        self.longest_prompt = max(map(len, self._prompts))
        if settings.prompts_per_step > len(self._prompts):
            raise ConfigError(
                f"prompts_per_step must be at most {len(self._prompts)}, as many as the task {settings.task} has, not "
                f"{settings.prompts_per_step}"
            )

    def sample(self, step: int, digest: str) -> tuple[Batch, GenerationReport]:
        """The step's answers, of as many prompts as it has, drawn from the served policy.

        Args:
            digest: of the adapter that must answer, as `update_weights` has reported it.

        Raises:
            MindgenError: a request has failed, or another adapter has answered.
        """
        started = time.perf_counter()
        settings = self._settings
        random = np.random.default_rng((settings.seed, step))
        chosen = random.choice(len(self._prompts), settings.prompts_per_step, replace=False)
        prompts = [self._prompts[place] for place in chosen]
        params = [
            SamplingParams(
                n=settings.group_size,
                max_tokens=settings.max_tokens,
                processed_logprobs=True,
                seed=int(random.integers(2**62)),
            )
            for _ in prompts
        ]
        outputs = self._llm.generate(prompts, params, POLICY)
        for output in outputs:
            _require_answered(output, digest)
        groups = self._judge(outputs)
        version = outputs[0].adapter_version or 0
        batch = Batch(groups, version, digest)
        seconds = time.perf_counter() - started
        return batch, GenerationReport(seconds, batch.num_tokens() / seconds, _divergence(batch))

    def _judge(self, outputs: list[RequestOutput]) -> list[Group]:
        """Each output with its reward, and with the base model's log-probabilities."""
        pairs = [(output.prompt_token_ids, each) for output in outputs for each in output.outputs]
        base = iter(score(self._llm, [prompt for prompt, _ in pairs], [each.token_ids for _, each in pairs]))
        groups = []
        for output in outputs:
            answers = []
            for each in output.outputs:
                reward = self._task.reward(self._task.begun + each.text, each.finish_reason == "stop")
                assert each.processed_logprobs is not None  # as the sampling parameters ask for them
                answers.append(Answer(each.text, each.token_ids, each.processed_logprobs, next(base).logprobs, reward))
            groups.append(Group(output.prompt_token_ids, answers))
        return groups


def _require_answered(output: RequestOutput, digest: str) -> None:
    if output.exception is not None:
        raise output.exception
    if output.adapter_digest != digest:
        raise MindgenError(f"adapter {output.adapter_digest} has answered, and {digest} was sent")


def _divergence(batch: Batch) -> float:
    ratios = [np.subtract(answer.logprobs, answer.base_logprobs) for group in batch.groups for answer in group.answers]
    return float(np.concatenate(ratios).mean())
