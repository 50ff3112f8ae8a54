"""Reinforcement learning on one machine without a GPU: a LoRA adapter gets better by the rewards of its own answers.

    python examples/grpo_lora.py [--model smollm2] [--task json] [--steps 16] [--two_processes | --ray] [--plot]

Each step asks the served model, with the adapter "policy", for a group of answers to each of some prompts; a rule says
what each is worth; one gradient step in MindSpore makes the better ones of a group likelier (GRPO, arXiv:2402.03300);
and `LLM.update_weights` has the new adapter served. The parts are in examples/grpo/.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from grpo.placement import OneProcess, Placement, TwoProcesses
from grpo.policy import LoraSettings
from grpo.records import HEADER, StepRecord, draw, write_csv
from grpo.settings import LoopSettings
from grpo.tasks import TASKS

from mindgen.errors import ConfigError, MindgenError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = read_arguments(argv)
    try:
        settings = LoopSettings(**{field.name: getattr(arguments, field.name) for field in fields(LoopSettings)})
        lora = LoraSettings(arguments.rank, arguments.alpha, tuple(arguments.target_modules), arguments.last_layers)
        if arguments.steps < 1:
            raise ConfigError(f"steps must be at least 1, not {arguments.steps}")
        if arguments.plot and find_spec("matplotlib") is None:
            raise ConfigError("--plot needs matplotlib: pip install matplotlib")
        placement = open_placement(arguments, settings, lora)
        try:
            records = run(placement, arguments.steps)
            save(placement, records, arguments)
        finally:
            placement.close()
    except MindgenError as error:
        print(f"grpo_lora: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(placement: Placement, steps: int) -> list[StepRecord]:
    """The loop; prints a line for each step."""
    sync, records = placement.start(), []
    print(HEADER)
    for step in range(1, steps + 1):
        batch, generation = placement.sample(step, sync.digest)
        trained = placement.train(batch)
        if trained is not None:
            _, sync = trained
        records.append(StepRecord.of(step, batch, generation, trained))
        print(records[-1].line(), flush=True)
    return records


def save(placement: Placement, records: list[StepRecord], arguments: argparse.Namespace) -> None:
    """The adapter with the list that names it, and the curve."""
    output: Path = arguments.output
    placement.save(output / "policy")
    (output / "lora_adapter.json").write_text(json.dumps({"policy": "policy"}) + "\n", encoding="utf-8")
    write_csv(records, output / "curve.csv")
    if arguments.plot:
        draw(records, f"{arguments.model}: {arguments.task}", output / "curve.png")
    print(f"the adapter: mindgen generate --model {arguments.model} --adapter_path {output} --adapter_id policy")


def open_placement(arguments: argparse.Namespace, settings: LoopSettings, lora: LoraSettings) -> Placement:
    if arguments.ray:
        if find_spec("ray") is None:
            raise ConfigError("--ray needs Ray: pip install ray")
        from grpo.ray_actors import RayActors  # which needs Ray

        return RayActors(settings, lora)
    return TwoProcesses(settings, lora) if arguments.two_processes else OneProcess(settings, lora)


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    loop, lora = LoopSettings(), LoraSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("output/grpo"), help="of the adapter and the curve")
    parser.add_argument("--plot", action="store_true", help="draw the curve, with matplotlib")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--two_processes", action="store_true", help="train in another process")
    where.add_argument("--ray", action="store_true", help="generate and train in an actor each")
    for field in fields(LoopSettings):
        default = getattr(loop, field.name)
        choices = {"task": list(TASKS), "dtype": ["float32", "bfloat16"]}.get(field.name)
        parser.add_argument(f"--{field.name}", type=type(default), default=default, choices=choices)
    parser.add_argument("--rank", type=int, default=lora.rank)
    parser.add_argument("--alpha", type=int, default=lora.alpha)
    parser.add_argument("--target_modules", nargs="+", default=lora.target_modules)
    parser.add_argument("--last_layers", type=int, default=lora.last_layers, help="so many layers have LoRA")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
