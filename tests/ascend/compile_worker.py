"""Compiles what a DeviceRunner runs as one rank, in a process of its own that has the stand-in's environment.

dry_run.py starts it. Takes JSON requests and answers each: for every kind of step what the compiler makes of the
parameters, which collectives it puts where and how many heads it gives the attention ops; or why it refuses the
network.
"""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
from sequences import make_sequence

import mindgen  # noqa: F401  before mindspore
from mindgen.adapters.loader import load_adapter
from mindgen.adapters.slot_layout import SlotLayout
from mindgen.engine.batch import build_batch
from mindgen.engine.schedule import ScheduledSequence
from mindgen.errors import AdapterError, ModelError
from mindgen.kernels import plugin
from mindgen.parallel.group import ProcessGroup, shared_memory
from mindgen.parallel.layout import Shard
from mindgen.parallel.rank_place import RankPlace
from mindgen.parallel.stage import ONLY_STAGE, PipelineShape
from mindgen.runner import semi_auto
from mindgen.runner.ascend import DeviceRunner
from mindgen.runner.batch import Batch
from mindgen.runner.semi_auto import AutoParallel, check_layouts
from mindgen.runner.spec import RunnerSpec
from mindgen.weights.architecture import read_model_config
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.weight_files import find_weights

_CACHE = CacheShape(num_blocks=8, block_size=16)
_NUM_POSITIONS = 64
_SLOTS = SlotLayout((16, 8))
_NODE = re.compile(r"^\s+%(\d+)\(.*?\) = (?:PrimFunc_)?(\w+)\((.*)", re.MULTILINE)
_COLLECTIVE = re.compile("All(Reduce|Gather|toAll.*)|ReduceScatter|Broadcast|Send|Receive|NeighborExchange.*")
_ATTENTION = ("PagedAttention", "FlashAttentionScore")


@contextmanager
def recording() -> Iterator[dict]:
    """Notes what the compiler makes of a graph: the layouts that the runner checks, and the sliced graph."""
    found: dict = {}

    def check(declared, compiled, shard):
        check_layouts(declared, compiled, shard)
        found["tensor_maps"] = {name: layout.tensor_map for name, layout in compiled.items()}
        found["slice_shapes"] = {name: layout.slice_shape for name, layout in compiled.items()}

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(semi_auto, "check_layouts", check):
        os.environ["MS_DEV_SAVE_GRAPHS"] = "1"
        os.environ["MS_DEV_SAVE_GRAPHS_PATH"] = folder
        os.environ["MS_DEV_DUMP_IR_PASSES"] = "step_parallel_end"
        yield found
        found |= read_graph(Path(folder))


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


def saving(strategy_file: str | None) -> AbstractContextManager:
    """Has the compiler write its strategy file."""
    if strategy_file is None:
        return nullcontext()

    def sliced(*arguments, **options):
        made = AutoParallel(*arguments, **options)
        made.save_param_strategy_file(strategy_file)
        return made

    return mock.patch.object(semi_auto, "AutoParallel", sliced)


def make_batch(num_computed: int, slots: tuple[int | None, ...]) -> Batch:
    """Two sequences with three and four tokens to compute: seven, as many as no ranks divide."""
    entries = []
    for place, slot in enumerate(slots):
        num_tokens = 3 + place
        sequence = make_sequence(place, [1, 2, 3, 4, 5, 6][: num_computed + num_tokens], 8, vocab_size=320)
        sequence.request.adapter_slot = slot
        sequence.block_table, sequence.num_computed_tokens = [place], num_computed
        entries.append(ScheduledSequence(sequence, num_tokens, 1))
    return build_batch(entries, _CACHE.block_size, _SLOTS)[1]


def answer(request: dict) -> dict:
    """The request: `folder` of the model; `run` for logits (level 1); folders of `adapters` for the two slots, and of
    those that are `refused`; where to put the rank's `weights` and the `strategy_file`; `dtype`; and `cuts`, a wrong
    number of slices in place of the right one."""
    folder, size, rank = Path(request["folder"]), int(os.environ["RANK_SIZE"]), int(os.environ["RANK_ID"])
    kernels = plugin.load()
    group = ProcessGroup(kernels, shared_memory(kernels, size), rank, size)
    config, dtype = read_model_config(folder), request.get("dtype", "bfloat16")
    steps = {}
    with saving(request.get("strategy_file")), recording() as steps["decode"]:
        spec = RunnerSpec(config, dtype, _CACHE, _NUM_POSITIONS, "Ascend", shape=PipelineShape(1, size))
        runner = DeviceRunner(spec, find_weights(folder, None, size), RankPlace(group, ONLY_STAGE, None))
    if request.get("run"):
        steps["decode"]["logits"] = runner.run(make_batch(2, (None, None))).values.shape
    runner.enable_lora(_SLOTS, [])
    for slot, adapter in enumerate(request.get("adapters", [])):
        runner.write_adapter(slot, read_adapter(runner, adapter))
    kinds = {"prompts": (0, (None, None)), "decode with adapters": (2, (0, None)), "prompts with adapters": (0, (1, 0))}
    for name, (num_computed, slots) in kinds.items():
        batch = make_batch(num_computed, slots)
        with recording() as steps[name]:
            runner.compile(batch)
        if request.get("run"):
            steps[name]["logits"] = runner.run(batch).values.shape
    for adapter in request.get("refused", []):
        try:
            read_adapter(runner, adapter)
        except AdapterError as error:
            steps.setdefault("refused", []).append(str(error))
    if "weights" in request:
        loaded = {each.name: each for each in runner._network.get_parameters() if each.name in runner._weight_layouts}
        np.savez(request["weights"], **{name: each.asnumpy().astype(np.float32) for name, each in loaded.items()})
    return steps


def read_adapter(runner: DeviceRunner, folder: str):
    weights = load_adapter(Path(folder).name, Path(folder), runner.report.modules, runner.base_model)
    return runner.pack_adapter(weights)


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
