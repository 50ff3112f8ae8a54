"""Generator and trainer as an actor of Ray each: on other machines, or on this one; weights go through Ray's memory."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from grpo.generator import POLICY, GenerationReport, Generator
from grpo.placement import Sync, open_llm, python_path
from grpo.policy import LoraSettings
from grpo.settings import LoopSettings
from grpo.trainer import Trainer, TrainingReport
from grpo.trajectories import Batch
from mindgen.errors import MindgenError


class GeneratorActor:
    """Has the model, and takes new weights."""

    def __init__(self, settings: LoopSettings) -> None:
        self._llm = open_llm(settings)
        self._generator = Generator(self._llm, settings)

    def longest_prompt(self) -> int:
        return self._generator.longest_prompt

    def sample(self, step: int, digest: str) -> tuple[Batch, GenerationReport]:
        return self._generator.sample(step, digest)

    def take(self, tensors: dict[str, np.ndarray], adapter_config: dict[str, object]) -> tuple[int, str]:
        """Version and digest of what serves from now on."""
        report = self._llm.update_weights(tensors, target=POLICY, adapter_config=adapter_config)
        return report.version, report.checksum_after


class TrainerActor:
    """Has the policy."""

    def __init__(self, settings: LoopSettings, lora: LoraSettings, longest_prompt: int) -> None:
        self._trainer = Trainer(settings, lora, longest_prompt)

    def step(self, batch: Batch) -> TrainingReport | None:
        return self._trainer.step(batch)

    def tensors(self) -> dict[str, np.ndarray]:
        return self._trainer.policy.tensors()

    def adapter_config(self) -> dict[str, object]:
        return self._trainer.policy.adapter_config()

    def save(self, folder: str) -> None:
        self._trainer.policy.save(Path(folder))


class RayActors:
    """A Placement. It joins the cluster of RAY_ADDRESS, or else this machine's, which it starts if there is none."""

    def __init__(self, settings: LoopSettings, lora: LoraSettings) -> None:
        environment = {"env_vars": {"PYTHONPATH": python_path()}}
        ray.init(runtime_env=environment, include_dashboard=False, log_to_driver=False)
        self._generator = ray.remote(GeneratorActor).remote(settings)
        longest_prompt = _result(self._generator.longest_prompt.remote())
        self._trainer = ray.remote(TrainerActor).remote(settings, lora, longest_prompt)

    def start(self) -> Sync:
        return self._sync()

    def sample(self, step: int, digest: str) -> tuple[Batch, GenerationReport]:
        return _result(self._generator.sample.remote(step, digest))

    def train(self, batch: Batch) -> tuple[TrainingReport, Sync] | None:
        report = _result(self._trainer.step.remote(batch))
        return None if report is None else (report, self._sync())

    def save(self, folder: Path) -> None:
        _result(self._trainer.save.remote(str(folder.absolute())))

    def close(self) -> None:
        ray.shutdown()

    def _sync(self) -> Sync:
        started = time.perf_counter()
        weights = self._trainer.tensors.remote(), self._trainer.adapter_config.remote()
        version, digest = _result(self._generator.take.remote(*weights))
        return Sync(version, digest, time.perf_counter() - started)


def _result(reference: Any) -> Any:
    """Raises MindgenError where an actor has."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, MindgenError):
            raise error.cause from None
        raise
