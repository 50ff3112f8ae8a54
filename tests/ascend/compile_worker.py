"""Compiles networks as one rank, in a process of its own that has the stand-in's environment; dry_run.py starts it.

Takes JSON requests and answers each: for every kind of step what the compiler makes of the parameters, which
collectives it puts where and how many heads it gives the attention ops; or why it refuses the network.
"""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np

import mindgen  # noqa: F401  before mindspore
from mindgen.engine.semi_auto import SemiAutoNetwork
from mindgen.errors import ModelError
from mindgen.layers.attention import CacheShape
from mindgen.model_config import read_model_config
from mindgen.parallel.layout import Shard
from mindgen.slot_layout import SlotLayout

_CACHE = CacheShape(num_blocks=8, block_size=16)
_NUM_POSITIONS = 64
_SLOTS = SlotLayout((8, 8))
_NODE = re.compile(r"^\s+%(\d+)\(.*?\) = (?:PrimFunc_)?(\w+)\((.*)", re.MULTILINE)
_COLLECTIVE = re.compile("All(Reduce|Gather|toAll.*)|ReduceScatter|Broadcast|Send|Receive|NeighborExchange.*")
_ATTENTION = ("PagedAttention", "FlashAttentionScore")


def step_arrays(with_adapters: bool) -> list[np.ndarray]:
    """Six tokens of two sequences, three each; two adapter slots, and the one of the base model."""
    values = [[1, 2, 3, 4, 5, 6], [0, 1, 2] * 2, [0, 1, 2, 16, 17, 18], [[0], [1]], [3, 3], [3, 3], [3, 6], [2, 5]]
    arrays = [np.array(value, np.int32) for value in values]
    return [*arrays, np.array([2, 4, 6], np.int64)] if with_adapters else arrays


def read_graph(folder: Path) -> dict:
    """Of the graph that the compiler has sliced."""
    (path,) = folder.glob("**/step_parallel_end_*.ir")
    nodes = {number: (op, arguments) for number, op, arguments in _NODE.findall(path.read_text())}

    def source(arguments: str) -> str:
        """The op that computes the first argument."""
        match = re.match(r"%(\d+)", arguments)
        if match is None:
            return "an input"
        op, further = nodes[match[1]]
        return source(further) if op in ("TupleGetItem", "MakeTuple") else op

    collectives = [f"{op} of {source(given)}" for op, given in nodes.values() if _COLLECTIVE.fullmatch(op)]
    heads = [int(re.findall(r"I64\((\d+)\)", given)[0]) for op, given in nodes.values() if op in _ATTENTION]
    return {"collectives": Counter(collectives), "heads": heads}


def compile_step(network: SemiAutoNetwork, whole_prompts: bool, with_adapters: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MS_DEV_SAVE_GRAPHS"] = "1"
        os.environ["MS_DEV_SAVE_GRAPHS_PATH"] = folder
        os.environ["MS_DEV_DUMP_IR_PASSES"] = "step_parallel_end"
        layouts = network.compile(step_arrays(with_adapters), whole_prompts, with_adapters)
        maps = {name: layout.tensor_map for name, layout in layouts.items()}
        shapes = {name: layout.slice_shape for name, layout in layouts.items()}
        return {"tensor_maps": maps, "slice_shapes": shapes, **read_graph(Path(folder))}


def answer(request: dict) -> dict:
    """The request: `folder` of the model; `run` for fixed shapes and logits (level 1); where to put the rank's
    `weights` and the `strategy_file`; `dtype`; and `cuts`, a wrong number of slices in place of the right ones."""
    folder, run = Path(request["folder"]), request.get("run", False)
    strategy_file = Path(request["strategy_file"]) if "strategy_file" in request else None
    config, dtype = read_model_config(folder), request.get("dtype", "bfloat16")
    network = SemiAutoNetwork(config, _CACHE, _NUM_POSITIONS, dtype, _SLOTS, not run, strategy_file)
    steps = {}
    for whole_prompts in (False, True):
        for with_adapters in (False, True):
            name = f"{'prompts' if whole_prompts else 'decode'}{' with adapters' if with_adapters else ''}"
            steps[name] = compile_step(network, whole_prompts, with_adapters)
            if run:
                logits = network.run(step_arrays(with_adapters), whole_prompts, with_adapters)
                steps[name]["logits"] = logits.shape
    if "weights" in request:
        network.load(folder)
        weights = {name: parameter.asnumpy().astype(np.float32) for name, parameter in network.parameters().items()}
        np.savez(request["weights"], **weights)
    return steps


def wrong_cuts(number: int) -> AbstractContextManager:
    return mock.patch.object(Shard, "cuts", lambda shard, axis: number if axis.split_by else 1)


def main() -> None:
    answers = []
    for request in json.loads(sys.argv[1]):
        try:
            with wrong_cuts(request["cuts"]) if "cuts" in request else nullcontext():
                answers.append(answer(request))
        except ModelError as error:
            answers.append({"error": str(error)})
    print("ANSWERS " + json.dumps(answers), flush=True)
    os._exit(0)  # there is nothing behind the stand-in that could be closed


if __name__ == "__main__":
    import mindspore

    mindspore.set_device("Ascend")
    main()
