"""What all workers share: requests are JSON lines on standard input, answers JSON lines on standard output.

Workers run in the environments of their engines, where mindgen is not installed.

    {"command": "prepare", "folder": ...}           -> {"versions": {...}} or {"absent": reason}
    {"command": "load", "folder": ..., "limits": {...}} -> {"precision": ...}
    {"command": "run", "prompts": [[id, ...], ...], "new_tokens": n, "adapters": [name or null, ...]}
                                                    -> {"seconds": s, "first_tokens": [id, ...]}
An answer {"error": reason} means that the command failed.
"""

import ctypes
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What an engine must make room for, and the threads it may use."""

    threads: int
    max_num_seqs: int
    max_model_len: int
    max_total_len: int  # tokens of all sequences at once


class PeerEngine:
    """An engine behind the common interface."""

    module: str  # what an environment that has the engine can import
    distributions: tuple[str, ...]  # whose versions are reported
    precision: str  # how it computes, for the report

    @staticmethod
    def prepare(folder: Path) -> None:
        """Converts the checkpoint where the engine cannot read it; once, and not timed."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        raise NotImplementedError

    def generate(self, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> list[list[int]]:
        """The new tokens of each prompt, all at once, greedy; never fewer than new_tokens."""
        raise NotImplementedError


def serve(engine_class: type[PeerEngine]) -> None:
    """Answers requests until standard input ends."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the engine prints must not mix with answers
    engine = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["command"] == "prepare":
                answer = _prepare(engine_class, Path(request["folder"]))
            elif request["command"] == "load":
                engine = engine_class(Path(request["folder"]), Limits(**request["limits"]))
                answer = {"precision": engine.precision}
            else:
                answer = _run(engine, request["prompts"], request["new_tokens"], request["adapters"])
        except Exception as error:
            traceback.print_exc()
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        answers.write(json.dumps(answer) + "\n")


def _prepare(engine_class: type[PeerEngine], folder: Path) -> dict:
    if importlib.util.find_spec(engine_class.module) is None:
        return {"absent": f"{sys.executable} has no module {engine_class.module}"}
    engine_class.prepare(folder)
    return {"versions": _versions(engine_class.distributions)}


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _run(engine: PeerEngine, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> dict:
    start = time.perf_counter()
    outputs = engine.generate(prompts, new_tokens, adapters)
    seconds = time.perf_counter() - start
    lengths = [len(output) for output in outputs]
    if lengths != [new_tokens] * len(prompts):
        raise RuntimeError(f"asked for {new_tokens} tokens of {len(prompts)} requests, got {lengths}")
    return {"seconds": seconds, "first_tokens": [int(output[0]) for output in outputs]}


def _end_with_parent() -> None:
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
