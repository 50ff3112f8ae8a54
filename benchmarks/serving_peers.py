"""Servers as their clients see them: processes of their own, of which one runs at a time."""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from serving_overhead import completion, make_prompts
from worker_process import WorkerProcess

NAME = "m"  # what the servers call the model
_START_SECONDS = 1200.0
_RUN_SECONDS = 3600.0
_LOG_LINES = 5
_BENCH = Path(__file__).parent / "peer_workers" / "vllm_bench_serve.py"


class ServerError(Exception):
    """A server did not start, or a program that asks one failed."""


class ServerProcess:
    """Listens at a port of 127.0.0.1; all its processes are stopped but within `running`.

    Args:
        command: the port's number is to follow.
        environment: variables on top of this process's own.

    Raises:
        ServerError: it ends, or does not answer in time.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.address = name, ("127.0.0.1", _free_port())
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, str(self.address[1])],
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        try:
            self._wait(log)
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def __enter__(self) -> "ServerProcess":
        """It runs."""
        self._signal(signal.SIGCONT)
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGSTOP)

    def close(self) -> None:
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
                raise ServerError(f"{self.name} does not listen; its last lines: {' | '.join(lines)}")
            time.sleep(0.2)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen("http://{}:{}/health".format(*self.address), timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def start_mindgen(folder: Path, threads: int, max_num_seqs: int, logs: Path) -> ServerProcess:
    command = [sys.executable, "-m", "mindgen", "serve", "--model", str(folder), "--served_model_name", NAME]
    command += ["--num_threads", str(threads), "--max_num_seqs", str(max_num_seqs)]
    command += ["--enable_prefix_caching", "False", "--port"]
    return ServerProcess("mindgen", command, {}, logs / "mindgen.log")


def start_vllm(
    python: str,
    variables: dict[str, str],
    folder: Path,
    threads: int,
    max_num_seqs: int,
    max_model_len: int,
    logs: Path,
) -> ServerProcess:
    cores = sorted(os.sched_getaffinity(0))[:threads]
    environment = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),  # its own choice spares a core
        "VLLM_CACHE_ROOT": str(folder / "vllm"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", NAME]
    command += ["--dtype", "bfloat16", "--max-model-len", str(max_model_len), "--max-num-seqs", str(max_num_seqs)]
    command += ["--no-enable-prefix-caching", "--host", "127.0.0.1", "--port"]
    return ServerProcess("vllm", command, environment | variables, logs / "vllm.log")


def measure_load(
    server: ServerProcess, client: WorkerProcess, rate: float, count: int, prompt_len: int, num_tokens: int, turn: int
) -> dict[str, list[float]]:
    """Milliseconds to the first token of each request, and between tokens that follow, under Poisson load.

    Args:
        rate: requests per second.
        turn: has its own prompts and arrivals, the same for all servers.
    """
    arrivals = np.random.default_rng([turn, 1]).exponential(1 / rate, count).cumsum()
    prompts = make_prompts(count, prompt_len, turn)
    asked = [
        [float(wait), completion(prompt, num_tokens)]
        for wait, prompt in zip(arrivals - arrivals[0], prompts, strict=True)
    ]
    with server:
        streams = client.request({"address": server.address, "requests": asked}, _RUN_SECONDS)["streams"]
    assert all(each["tokens"] == num_tokens for each in streams)
    firsts = [1000 * (each["events"][0] - each["sent"]) for each in streams]
    gaps = [1000 * float(gap) for each in streams for gap in np.diff(each["events"])]
    return {"first": firsts, "next": gaps}


def summarize_load(turns: list[dict[str, list[float]]]) -> dict[str, float]:
    """Medians over the turns of each turn's percentiles."""
    return {
        f"{name} p{percent}": statistics.median(float(np.percentile(turn[name], percent)) for turn in turns)
        for name in ("first", "next")
        for percent in (50, 99)
    }


def bench_serve(
    python: str, variables: dict[str, str], server: ServerProcess, folder: Path, rate: float, count: int,
    prompt_len: int, num_tokens: int, logs: Path,
) -> dict[str, Any]:  # fmt: skip
    """What vLLM's own benchmark says of the server."""
    result = logs / f"bench-{server.name}.json"
    host, port = server.address
    command = [python, str(_BENCH), "--backend", "openai", "--base-url", f"http://{host}:{port}", "--model", NAME]
    command += ["--tokenizer", str(folder), "--dataset-name", "random", "--random-input-len", str(prompt_len)]
    command += ["--random-output-len", str(num_tokens), "--num-prompts", str(count), "--request-rate", str(rate)]
    command += ["--ignore-eos", "--save-result", "--result-dir", str(logs), "--result-filename", result.name]
    command += ["--percentile-metrics", "ttft,tpot,itl", "--metric-percentiles", "50,99", "--disable-tqdm"]
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **variables}
    with server:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise ServerError(f"vllm bench serve failed: {' | '.join(done.stderr.splitlines()[-_LOG_LINES:])}")
    found = json.loads(result.read_text())
    names = ("completed", "failed", "output_throughput", "p50_ttft_ms", "p99_ttft_ms", "p50_itl_ms", "p99_itl_ms")
    return {name: found.get(name) for name in names}
