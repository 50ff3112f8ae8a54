"""What a run has shown, step by step: a line on the screen, a row of a CSV file, a point of a plot."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from grpo.generator import GenerationReport
from grpo.placement import Sync
from grpo.trainer import TrainingReport
from grpo.trajectories import Batch

HEADER = (
    "step  reward  signal     loss   KL/token  |dlogp|  tokens/s  generate  train   sync  answered by version (digest)"
)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """
    Attributes:
        reward: the mean of all answers'.
        share_with_signal: of the groups, those whose answers are not all worth the same.
        loss, largest_difference, train_seconds, sync_seconds: None where nothing was trained.
        divergence: as of GenerationReport.
        version, digest: of the adapter that has answered.
    """

    step: int
    reward: float
    share_with_signal: float
    loss: float | None
    divergence: float
    largest_difference: float | None
    tokens_per_second: float
    generate_seconds: float
    train_seconds: float | None
    sync_seconds: float | None
    version: int
    digest: str

    @classmethod
    def of(
        cls, step: int, batch: Batch, generation: GenerationReport, trained: tuple[TrainingReport, Sync] | None
    ) -> "StepRecord":
        rewards = np.array(batch.rewards())  # (P, G)
        training, sync = trained or (None, None)
        return cls(
            step=step,
            reward=float(rewards.mean()),
            share_with_signal=float((np.ptp(rewards, axis=1) > 0).mean()),
            loss=None if training is None else training.loss,
            divergence=generation.divergence,
            largest_difference=None if training is None else training.difference,
            tokens_per_second=generation.tokens_per_second,
            generate_seconds=generation.seconds,
            train_seconds=None if training is None else training.seconds,
            sync_seconds=None if sync is None else sync.seconds,
            version=batch.adapter_version,
            digest=batch.adapter_digest,
        )

    def line(self) -> str:
        """Under HEADER."""
        begin = f"{self.step:4}  {self.reward:6.3f}  {self.share_with_signal:6.2f}"
        generated = f"{self.tokens_per_second:8.0f}  {self.generate_seconds:6.1f} s"
        by = f"{self.version} ({self.digest[:12]})"
        if self.loss is None:
            return f"{begin}  {'-':>7}  {self.divergence:9.4f}  {'-':>7}  {generated}  nothing to learn  {by}"
        return (
            f"{begin}  {self.loss:7.4f}  {self.divergence:9.4f}  {self.largest_difference:7.1e}  {generated}  "
            f"{self.train_seconds:4.1f} s  {1000 * (self.sync_seconds or 0):3.0f} ms  {by}"
        )


def write_csv(records: Sequence[StepRecord], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(StepRecord)])
        writer.writeheader()
        writer.writerows(asdict(record) for record in records)


def draw(records: Sequence[StepRecord], title: str, path: Path) -> None:
    """The reward and the distance from the base model, by step; a .png or a .svg.

    Raises:
        ImportError: there is no matplotlib.
    """
    import matplotlib.pyplot as plt  # only who draws needs it

    figure, rewards = plt.subplots(figsize=(6.4, 3.6))
    steps = [record.step for record in records]
    (reward,) = rewards.plot(steps, [record.reward for record in records], "o-", color="C0", label="reward, mean")
    rewards.set(xlabel="step", ylabel="reward", ylim=(0, 1.02), title=title)
    rewards.grid(alpha=0.3)
    distances = rewards.twinx()
    values = [record.divergence for record in records]
    (distance,) = distances.plot(steps, values, "s:", color="C1", label="KL from the base model")
    distances.set(ylabel="nats per token", ylim=(min(0.0, *values), max(0.1, *values) * 1.5))
    rewards.legend(handles=[reward, distance], loc="upper left", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
