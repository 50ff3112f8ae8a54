"""An engine with the runner that its configuration asks for."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine import Engine
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.memory_plan import plan_memory, weight_bytes
from mindgen.engine.slot_planner import SlotPlanner
from mindgen.kernels.dtypes import STORAGE
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.parallel.stage import PipelineShape
from mindgen.runner.device import choose_device
from mindgen.runner.parallel import make_runner
from mindgen.runner.spec import RunnerSpec
from mindgen.system.memory import parse_size
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.model_config import settle_head
from mindgen.weights.weight_files import WeightFiles


def open_engine(
    spec: EngineSpec, weights: WeightFiles, adapters: AdapterRegistry, nodes: OtherNodes | None = None
) -> Engine:
    """Plans the memory, loads the network, here or on ranks, and puts an engine over it.

    Args:
        nodes: the other machines that the network lies on as well, if it does.

    Raises:
        MindgenError: the model cannot be served within the configuration; the message says why.
    """
    spec = replace(spec, model=settle_head(spec.model, weights.folders[0], weights.has_own_head()))
    num_positions = max(spec.max_model_len, spec.config.max_num_batched_tokens) + 1
    on_cpu = choose_device(spec.config.device_target) == "CPU"
    slots = SlotPlanner(spec, adapters, on_cpu)
    memory_plan = plan_memory(spec, weight_bytes(spec, weights), slots.sizes(), on_cpu)
    cache = CacheShape(memory_plan.num_blocks, spec.config.block_size)
    runner = make_runner(runner_spec(spec, cache, num_positions), weights, nodes, spec.config.worker_timeout)
    return Engine(spec, runner, adapters, memory_plan, slots)


def runner_spec(spec: EngineSpec, cache: CacheShape, num_positions: int) -> RunnerSpec:
    """What an engine's says of its runner."""
    model, dtype, config = spec.model, spec.dtype, spec.config
    shape = PipelineShape(
        config.pipeline_parallel_size,
        config.tensor_parallel_size,
        config.max_num_batched_tokens * model.hidden_size * np.dtype(STORAGE[dtype]).itemsize,
        config.max_num_batched_tokens * model.vocab_size * np.dtype(np.float32).itemsize,
        dtype,
    )
    return RunnerSpec(
        model_config=model,
        dtype=dtype,
        cache=cache,
        num_positions=num_positions,
        device=choose_device(config.device_target),
        executor=config.executor,
        num_threads=config.num_threads,
        shape=shape,
        host_adapter_bytes=parse_size(config.host_adapter_memory),
        adapter_slices=None if config.adapter_slices is None else Path(config.adapter_slices),
    )
