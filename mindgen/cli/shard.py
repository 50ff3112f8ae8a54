"""`mindgen shard`: checkpoints from whole to sharded and back, or from one sharding to another."""

import argparse
from pathlib import Path

from mindgen.errors import CheckpointError, UsageError, warn
from mindgen.store.find_model import find_model
from mindgen.weights.architecture import read_model_config
from mindgen.weights.model_config import settle_head
from mindgen.weights.placement import Placement, declared_placement, strategy_placement, whole_placement
from mindgen.weights.rank_files import STRATEGY_FILE, find_rank_folders
from mindgen.weights.reshard import Target, transform
from mindgen.weights.sharded_checkpoint import ShardedCheckpoint, open_source
from mindgen.weights.strategy_file import Strategy, read_strategy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a Hugging Face folder, a folder with rank_N in it, demo or gpt2")
    add("--output", type=Path, required=True, metavar="DIR", help="a new folder, for rank_0, rank_1...")
    add("--tp", type=int, metavar="N", help="shard for so many ranks, as mindgen's layers lie on them")
    add("--pp", type=int, metavar="N", help="and for so many pipeline stages, each of as many ranks (default: 1)")
    add("--strategy", type=Path, metavar="PATH", help="shard as MindSpore's strategy file (or folder of them) says")
    add(
        "--source_strategy", type=Path, metavar="PATH",
        help=f"how SOURCE is sharded (default: SOURCE/{STRATEGY_FILE}, if there is one)",
    )  # fmt: skip
    add("--model", type=Path, metavar="DIR", help="the Hugging Face folder whose config.json --tp and --pp go by")
    add("--format", choices=["safetensors", "ckpt"], default="safetensors")
    add("--prefix", default="checkpoint_", help="of the file names, before the rank")
    add("--processes", type=int, default=1, metavar="N", help="write so many ranks at a time")
    add("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Without --tp, --pp and --strategy the result is whole, in rank_0.

    Raises:
        MindgenError: of whatever part refused.
    """
    is_declared = arguments.tp is not None or arguments.pp is not None
    num_ranks, num_stages = (1 if given is None else given for given in (arguments.tp, arguments.pp))
    if is_declared and arguments.strategy is not None:
        raise UsageError("--strategy says how to shard, and so do --tp and --pp: leave one out")
    if min(arguments.processes, num_ranks, num_stages) < 1:
        raise UsageError("--tp, --pp and --processes must be at least 1")
    folder = Path(arguments.source)
    model = None if arguments.model is None else find_model(arguments.model)
    source = open_source(folder if find_rank_folders(folder) else find_model(folder), arguments.source_strategy, model)
    checkpoint = source()
    if arguments.strategy is not None:
        placement = strategy_placement(checkpoint.shapes, read_strategy(arguments.strategy))
    elif is_declared:
        placement = _declared(checkpoint, arguments.model or Path(arguments.source), num_ranks, num_stages)
    else:
        placement = whole_placement(checkpoint.shapes)
    target = Target(arguments.output, arguments.prefix, f".{arguments.format}")
    done = transform(source, placement, target, arguments.processes, _strategy(placement))
    print(
        f"{target.folder}: {done.num_ranks} rank(s), {done.num_tensors} tensors, {done.num_bytes / 2**20:.1f} MiB, "
        f"read back; digest {done.digest[:12]}"
    )
    return 0


def _strategy(placement: Placement) -> Strategy | None:
    if placement.num_ranks == 1:
        return None
    try:
        return placement.strategy()
    except CheckpointError as error:  # the ranks can be loaded, only not be joined again
        warn(f"there is no {STRATEGY_FILE}: {error}")
        return None


def _declared(checkpoint: ShardedCheckpoint, model: Path, num_ranks: int, num_stages: int) -> Placement:
    from mindgen.models.registry import declared_layouts  # starts MindSpore

    folder = find_model(model)
    config = settle_head(read_model_config(folder), folder, checkpoint.has_own_head())
    return declared_placement(checkpoint.shapes, declared_layouts(config, num_ranks, num_stages), num_ranks)
