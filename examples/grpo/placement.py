"""Where generator and trainer are: in this process, taking turns, or in one each. Ray has actors in ray_actors.py."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from grpo.generator import POLICY, GenerationReport, Generator
from grpo.policy import LoraSettings
from grpo.settings import LoopSettings
from grpo.trainer import Trainer, TrainingReport
from grpo.trajectories import Batch
from mindgen import LLM
from mindgen.errors import MindgenError
from mindgen.rlhf import WeightReceiver

_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sync:
    """The adapter's way from the trainer to the generator; the digest is of what has arrived, as the engine tells."""

    version: int
    digest: str
    seconds: float


class Placement(Protocol):
    """Generator and trainer, wherever they are."""

    def start(self) -> Sync:
        """Has the first adapter served."""

    def sample(self, step: int, digest: str) -> tuple[Batch, GenerationReport]:
        """As of Generator."""

    def train(self, batch: Batch) -> tuple[TrainingReport, Sync] | None:
        """A gradient step, and the new adapter served; None where nothing was to be learnt.

        Raises:
            MindgenError: as of Trainer.step, or the adapter was refused.
        """

    def save(self, folder: Path) -> None:
        """Writes the adapter."""

    def close(self) -> None:
        """Nothing can be asked for afterwards."""


class OneProcess:
    """The model sleeps while the trainer computes: the memory of its KV cache is free then."""

    def __init__(self, settings: LoopSettings, lora: LoraSettings) -> None:
        self.llm = open_llm(settings)
        self._generator = Generator(self.llm, settings)
        self.trainer = Trainer(settings, lora, self._generator.longest_prompt)

    def start(self) -> Sync:
        return self._sync()

    def sample(self, step: int, digest: str) -> tuple[Batch, GenerationReport]:
        return self._generator.sample(step, digest)

    def train(self, batch: Batch) -> tuple[TrainingReport, Sync] | None:
        self.llm.sleep(1)
        try:
            report = self.trainer.step(batch)
        finally:
            self.llm.wake_up()
        return None if report is None else (report, self._sync())

    def save(self, folder: Path) -> None:
        self.trainer.policy.save(folder)

    def close(self) -> None:
        self.llm.close()

    def _sync(self) -> Sync:
        started = time.perf_counter()
        policy = self.trainer.policy
        report = self.llm.update_weights(policy.tensors(), target=POLICY, adapter_config=policy.adapter_config())
        return Sync(report.version, report.checksum_after, time.perf_counter() - started)


class TwoProcesses:
    """The trainer is a process of its own: answers go there as lines of JSON, weights come through shared memory."""

    def __init__(self, settings: LoopSettings, lora: LoraSettings) -> None:
        self.llm = open_llm(settings)
        self._generator = Generator(self.llm, settings)
        self._folder = tempfile.TemporaryDirectory(prefix="grpo-")
        socket = Path(self._folder.name) / "weights"
        self._receiver = WeightReceiver(self.llm, socket)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "grpo.trainer_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": python_path()},
        )  # fmt: skip
        self._start = Start(settings, lora, self._generator.longest_prompt, str(socket))

    def start(self) -> Sync:
        sync = self._ask(self._start).sync
        assert sync is not None
        return sync

    def sample(self, step: int, digest: str) -> tuple[Batch, GenerationReport]:
        return self._generator.sample(step, digest)

    def train(self, batch: Batch) -> tuple[TrainingReport, Sync] | None:
        reply = self._ask(Request(batch=batch))
        return None if reply.training is None or reply.sync is None else (reply.training, reply.sync)

    def save(self, folder: Path) -> None:
        self._ask(Request(save_to=str(folder.absolute())))

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()  # which ends it
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._receiver.close()
        self._folder.cleanup()
        self.llm.close()

    def _ask(self, message: "Start | Request") -> "Reply":
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(msgspec.json.encode(message) + b"\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise MindgenError("the trainer's process has ended; what it has written above says why")
        reply = msgspec.json.decode(line, type=Reply)
        if reply.error is not None:
            raise MindgenError(reply.error)
        return reply


class Start(msgspec.Struct):
    """The first line to the trainer's process."""

    settings: LoopSettings
    lora: LoraSettings
    longest_prompt: int
    socket: str


class Request(msgspec.Struct):
    """Each other line: a batch to learn from, or where to write the adapter."""

    batch: Batch | None = None
    save_to: str | None = None


class Reply(msgspec.Struct):
    """The line that answers one."""

    training: TrainingReport | None = None
    sync: Sync | None = None
    error: str | None = None


def python_path() -> str:
    """For other processes to find these modules."""
    return os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def open_llm(settings: LoopSettings) -> LLM:
    """With no other adapters, and room for all answers of a step at once."""
    answers = settings.prompts_per_step * settings.group_size
    return LLM(settings.model, adapters={}, dtype=settings.dtype, max_num_seqs=answers)
