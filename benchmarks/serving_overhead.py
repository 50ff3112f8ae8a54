"""What the server adds to a token of the bare engine: both have the same model, in turns, in one process."""

import os
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from worker_process import WorkerProcess

from mindgen import LLM, SamplingParams
from mindgen.engine.engine_config import EngineConfig
from mindgen.loop.model_files import ModelFiles
from mindgen.server.assemble import assemble
from mindgen.server.config import ServerConfig
from mindgen.server.model import ServedModel
from mindgen.server.outside import read_outside
from mindgen.server.run import bind, serve
from mindgen.settings import GenerationSettings

_BYTE_TOKENS = 256  # of random_model's tokenizer
_TIMEOUT = 1200.0


def completion(prompt: list[int], num_tokens: int) -> dict[str, Any]:
    """The body of a request."""
    return {"prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True}


def make_prompts(count: int, length: int, seed: int) -> list[list[int]]:
    return np.random.default_rng(seed).integers(0, _BYTE_TOKENS, (count, length)).tolist()


def measure_overhead(
    folder: Path, client: WorkerProcess, streams: int, prompt_len: int, num_tokens: int, turns: int, threads: int
) -> dict[str, Any]:
    """Of so many streams at once, beside `LLM.generate` of the same requests, whose texts are made at their end.

    The server runs in this thread, as it has to; what measures runs in another, and ends it.
    """
    config = ServerConfig(port=0, access_log=False)
    limits = EngineConfig(max_num_seqs=streams, num_threads=threads, enable_prefix_caching=False)
    llm = LLM(folder, config=limits)
    server_thread = time.pthread_getcpuclockid(threading.get_ident())
    rows: list[dict[str, float]] = []
    errors: list[BaseException] = []

    def bare(prompts: list[list[int]]) -> float:
        params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        start = time.perf_counter()
        llm.generate(prompts, params)
        return time.perf_counter() - start

    def served(prompts: list[list[int]], address: tuple[str, int]) -> dict[str, float]:
        before = time.clock_gettime(server_thread)
        asked = [[0.0, completion(prompt, num_tokens)] for prompt in prompts]
        answer = client.request({"address": address, "requests": asked}, _TIMEOUT)
        found = answer["streams"]
        assert sum(each["tokens"] for each in found) == streams * num_tokens
        seconds = max(each["events"][-1] for each in found) - min(each["sent"] for each in found)
        server_cpu = time.clock_gettime(server_thread) - before
        return {"served": seconds, "server cpu": server_cpu, "client cpu": answer["cpu_seconds"]}

    def measure(address: tuple[str, int]) -> None:
        try:
            for turn in range(turns + 1):
                prompts = make_prompts(streams, prompt_len, turn)
                row = {"bare": bare(prompts)} | served(prompts, address)
                if turn > 0:  # the first warms up
                    rows.append(row)
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
    return _summary(rows, streams * num_tokens) | {"streams": streams, "tokens": num_tokens, "turns": turns}


def _summary(rows: list[dict[str, float]], num_tokens: int) -> dict[str, float]:
    overheads = [row["served"] / row["bare"] - 1 for row in rows]

    def microseconds(name: str) -> float:
        return statistics.median(row[name] for row in rows) / num_tokens * 1e6

    return {
        "bare_tokens_per_second": num_tokens / statistics.median(row["bare"] for row in rows),
        "served_tokens_per_second": num_tokens / statistics.median(row["served"] for row in rows),
        "overhead": statistics.median(overheads),
        "lowest_overhead": min(overheads),
        "highest_overhead": max(overheads),
        "bare_us_per_token": microseconds("bare"),
        "server_cpu_us_per_token": microseconds("server cpu"),
        "client_cpu_us_per_token": microseconds("client cpu"),
    }
