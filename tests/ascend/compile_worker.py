"""Compiles networks as one rank, in a process of its own; started by dry_run.py with the stand-in's environment.

Takes a JSON request as its argument and answers with a JSON line: for each network and kind of step what the compiler
made of the parameters and which collectives it put where; or why it refused.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

import mindgen  # noqa: F401  before mindspore
from mindgen.engine.semi_auto import SemiAutoNetwork
from mindgen.errors import ModelError
from mindgen.layers.attention import CacheShape
from mindgen.model_config import read_model_config
from mindgen.slot_layout import SlotLayout

_CACHE = CacheShape(num_blocks=8, block_size=16)
_NUM_POSITIONS = 64
_SLOTS = SlotLayout((8, 8))
_TOKENS = 6  # of two sequences, three each

_NODE = re.compile(r"^\s+%(\d+)\(.*?\) = (?:PrimFunc_)?(\w+)\((.*)", re.MULTILINE)


def step_arrays(with_adapters: bool) -> list[np.ndarray]:
    values = [[1, 2, 3, 4, 5, 6], [0, 1, 2] * 2, [0, 1, 2, 16, 17, 18], [[0], [1]], [3, 3], [3, 3], [3, 6], [2, 5]]
    arrays = [np.array(value, np.int32) for value in values]
    return [*arrays, np.array([2, 4, _TOKENS], np.int64)] if with_adapters else arrays


def collectives(folder: Path) -> list[str]:
    """Of the compiler's last graph each collective with the op that it follows, like "AllReduce of MatMul"."""
    (path,) = folder.glob("**/step_parallel_end_*.ir")
    nodes = {number: (op, arguments) for number, op, arguments in _NODE.findall(path.read_text())}

    def source(arguments: str) -> str:
        match = re.match(r"%(\d+)", arguments)
        if match is None:
            return "an input"
        op, further = nodes[match[1]]
        return source(further) if op in ("TupleGetItem", "MakeTuple", "Split") else op

    kinds = re.compile("All(Reduce|Gather|toAll.*)|ReduceScatter|Broadcast|Send|Receive|NeighborExchange.*")
    return sorted(f"{op} of {source(arguments)}" for op, arguments in nodes.values() if kinds.fullmatch(op))


def heads(folder: Path) -> list[int]:
    """The numbers of heads that the attention ops of the compiler's last graph are given."""
    (path,) = folder.glob("**/step_parallel_end_*.ir")
    calls = re.findall(r"PrimFunc_(?:PagedAttention|FlashAttentionScore)\(.*?I64\((\d+)\)", path.read_text())
    return [int(number) for number in calls]


def compile_kind(network: SemiAutoNetwork, whole_prompts: bool, with_adapters: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            MS_DEV_SAVE_GRAPHS="1", MS_DEV_SAVE_GRAPHS_PATH=folder, MS_DEV_DUMP_IR_PASSES="step_parallel_end"
        )
        layouts = network.compile(step_arrays(with_adapters), whole_prompts, with_adapters)
        return {
            "tensor_maps": {name: layout.tensor_map for name, layout in layouts.items()},
            "slice_shapes": {name: layout.slice_shape for name, layout in layouts.items()},
            "collectives": collectives(Path(folder)),
            "heads": heads(Path(folder)),
        }


def network_of(folder: Path, dynamic: bool, strategy_file: Path | None) -> SemiAutoNetwork:
    config = read_model_config(folder)
    return SemiAutoNetwork(config, _CACHE, _NUM_POSITIONS, "bfloat16", _SLOTS, dynamic, strategy_file)


def loaded_weights(network: SemiAutoNetwork, folder: Path, target: Path) -> None:
    network.load(folder)
    np.savez(target, **{name: value.float().asnumpy() for name, value in network.parameters().items()})


def answer(request: dict) -> dict:
    folder, runs = Path(request["folder"]), request["runs"]
    strategy_file = Path(request["strategy_file"]) if request.get("strategy_file") else None
    network = network_of(folder, dynamic=not runs, strategy_file=strategy_file)
    result = {}
    for whole_prompts in (False, True):
        for with_adapters in (False, True):
            name = f"{'prompts' if whole_prompts else 'decode'}{'+adapters' if with_adapters else ''}"
            result[name] = compile_kind(network, whole_prompts, with_adapters)
    if request.get("weights"):
        loaded_weights(network, folder, Path(request["weights"]))
    if runs:
        for name, kind in result.items():
            with_adapters = "adapters" in name
            logits = network.run(step_arrays(with_adapters), "prompts" in name, with_adapters)
            kind["logits_shape"] = logits.shape
    return result


def main() -> None:
    answers = []
    for request in json.loads(sys.argv[1]):
        try:
            answers.append(answer(request))
        except ModelError as error:
            answers.append({"error": str(error)})
    print("ANSWERS " + json.dumps(answers), flush=True)
    os._exit(0)  # the stand-in has nothing to close


if __name__ == "__main__":
    import mindspore

    mindspore.set_device("Ascend")
    main()
