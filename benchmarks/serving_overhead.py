"""What the server adds to a token of the bare engine: both have the same model, in turns, in one process."""

import os
import signal
import statistics
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from worker_process import WorkerProcess

from mindgen import LLM, SamplingParams
from mindgen.engine.engine import Engine
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.sequence import Request
from mindgen.loop.model_files import ModelFiles
from mindgen.runner.profiling import Profile
from mindgen.server.assemble import assemble
from mindgen.server.config import ServerConfig
from mindgen.server.model import ServedModel
from mindgen.server.outside import read_outside
from mindgen.server.run import bind, serve
from mindgen.settings import GenerationSettings

_BYTE_TOKENS = 256  # of random_model's tokenizer
_TIMEOUT = 1200.0
_UNDISTURBED_PERCENT = 10


def completion(prompt: list[int], num_tokens: int) -> dict[str, Any]:
    """The body of a request."""
    return {"prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True}


def make_prompts(count: int, length: int, seed: int) -> list[list[int]]:
    return np.random.default_rng(seed).integers(0, _BYTE_TOKENS, (count, length)).tolist()


class StepCycles:
    """Seconds from one step of an engine to the next, of steps that decode a token for each of so many requests.

    Attributes:
        seconds: of all cycles since it was cleared.
    """

    def __init__(self, engine: Engine, num_requests: int) -> None:
        self.seconds: list[float] = []
        self._step, self._num_requests = engine.step, num_requests
        self._last: float | None = None  # when the step before began, if it was one of these
        engine.step = self._timed  # type: ignore[method-assign]

    def clear(self) -> None:
        self.seconds, self._last = [], None

    def _timed(self, profile: Profile | None = None) -> list[Request]:
        start = time.perf_counter()
        if self._last is not None:
            self.seconds.append(start - self._last)
        changed = self._step(profile)
        is_decoding = len(changed) == self._num_requests and not any(each.is_finished for each in changed)
        self._last = start if is_decoding else None
        return changed


def measure_overhead(
    folder: Path, client: WorkerProcess, streams: int, prompt_len: int, num_tokens: int, turns: int, threads: int
) -> dict[str, Any]:
    """Of so many streams at once, beside `LLM.generate` of the same requests, whose texts are made at their end.

    The server runs in this thread, as it has to; what measures runs in another, and ends it.

    Raises:
        ValueError: the streams never were all at it at once.
    """
    config = ServerConfig(port=0, access_log=False)
    limits = EngineConfig(max_num_seqs=streams, num_threads=threads, enable_prefix_caching=False)
    llm = LLM(folder, config=limits)
    cycles = StepCycles(llm._model._texts.engine, streams)
    server_thread = time.pthread_getcpuclockid(threading.get_ident())
    turns_of: dict[str, list[list[float]]] = {"bare": [], "served": []}
    used: dict[str, list[float]] = {"server": [], "client": []}
    errors: list[BaseException] = []

    def bare(prompts: list[list[int]]) -> None:
        llm.generate(prompts, SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True))

    def served(prompts: list[list[int]], address: tuple[str, int]) -> None:
        before = time.clock_gettime(server_thread)
        asked = [[0.0, completion(prompt, num_tokens)] for prompt in prompts]
        answer = client.request({"address": address, "requests": asked}, _TIMEOUT)
        assert sum(each["tokens"] for each in answer["streams"]) == streams * num_tokens
        used["server"].append(time.clock_gettime(server_thread) - before)
        used["client"].append(answer["cpu_seconds"])

    def measure(address: tuple[str, int]) -> None:
        try:
            for turn in range(turns + 1):
                prompts = make_prompts(streams, prompt_len, turn)
                for name, run in (("bare", partial(bare, prompts)), ("served", partial(served, prompts, address))):
                    cycles.clear()
                    run()
                    if not cycles.seconds:
                        raise ValueError("no step had all streams: have them give more --tokens")
                    if turn > 0:  # the first warms up
                        turns_of[name].append(cycles.seconds)
        except BaseException as error:
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with bind(config) as bound:
        files = ModelFiles.of(folder, None, None)
        model = ServedModel.of(llm, files, "m", GenerationSettings(), limits)
        app = assemble(model, config, read_outside(config, print))
        measuring = threading.Thread(target=measure, args=(bound.getsockname()[:2],))
        serve(app, bound, 10, measuring.start)
        measuring.join()
    llm.close()
    if errors:
        raise errors[0]
    microseconds = {f"{name}_cpu_us": statistics.median(own) / streams / num_tokens * 1e6 for name, own in used.items()}
    return {"streams": streams, "tokens": num_tokens, "turns": turns, **microseconds, **_summary(turns_of, streams)}


def _summary(turns: dict[str, list[list[float]]], streams: int) -> dict[str, float]:
    """Of a step's time per token; the quickest tenth are the steps that nothing else on the machine has disturbed."""
    overheads = [
        statistics.median(served) / statistics.median(bare) - 1
        for bare, served in zip(turns["bare"], turns["served"], strict=True)
    ]
    found = {
        "overhead": statistics.median(overheads),
        "lowest_overhead": min(overheads),
        "highest_overhead": max(overheads),
    }
    for name, own in turns.items():
        seconds = [each for cycles in own for each in cycles]
        found[f"{name}_us"] = statistics.median(seconds) / streams * 1e6
        found[f"{name}_undisturbed_us"] = float(np.percentile(seconds, _UNDISTURBED_PERCENT)) / streams * 1e6
    found["undisturbed_overhead"] = found["served_undisturbed_us"] / found["bare_undisturbed_us"] - 1
    return found
