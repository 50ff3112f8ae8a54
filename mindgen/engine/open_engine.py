"""An engine with the runner that its configuration asks for."""

from pathlib import Path

import numpy as np

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine import Engine
from mindgen.engine.engine_config import EngineConfig
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
from mindgen.weights.model_config import ModelConfig, settle_head
from mindgen.weights.weight_files import WeightFiles


def open_engine(
    weights: WeightFiles,
    model_config: ModelConfig,
    adapters: AdapterRegistry,
    dtype: str,
    config: EngineConfig,
    nodes: OtherNodes | None = None,
) -> Engine:
    """Plans the memory, loads the network, here or on ranks, and puts an engine over it.

    Args:
        nodes: the other machines that the network lies on as well, if it does.

    Raises:
        MindgenError: the model cannot be served within the configuration; the message says why.
    """
    model_config = settle_head(model_config, weights.folders[0], weights.has_own_head())
    max_model_len = config.longest_sequence(model_config.max_position)
    on_cpu = choose_device(config.device_target) == "CPU"
    slots = SlotPlanner(model_config, dtype, config, adapters, on_cpu)
    sizes = weight_bytes(weights, model_config, dtype, config), slots.sizes()
    memory_plan = plan_memory(model_config, dtype, config, max_model_len, *sizes, on_cpu)
    cache = CacheShape(memory_plan.num_blocks, config.block_size)
    spec = runner_spec(model_config, cache, max(max_model_len, config.max_num_batched_tokens) + 1, dtype, config)
    runner = make_runner(spec, weights, nodes, config.worker_timeout)
    return Engine(runner, model_config, adapters, config, dtype, memory_plan, slots)


def runner_spec(
    model_config: ModelConfig, cache: CacheShape, num_positions: int, dtype: str, config: EngineConfig
) -> RunnerSpec:
    """What the configuration says of the runner."""
    shape = PipelineShape(
        config.pipeline_parallel_size,
        config.tensor_parallel_size,
        config.max_num_batched_tokens * model_config.hidden_size * np.dtype(STORAGE[dtype]).itemsize,
        config.max_num_batched_tokens * model_config.vocab_size * np.dtype(np.float32).itemsize,
        dtype,
    )
    return RunnerSpec(
        model_config=model_config,
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
