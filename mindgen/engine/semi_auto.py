"""The network under MindSpore's SEMI_AUTO_PARALLEL, as on Ascend: the compiler slices what the layers declare.

The layers are built whole, with `.shard()` strategies of their declared layouts; the compiler gives each rank its slices
and adds the collectives. What it made of the declarations is compared with them before any weight is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.communication import get_group_size, get_rank, init
from mindspore.parallel.auto_parallel import AutoParallel

from mindgen.checkpoint.hf import map_weights
from mindgen.engine.step_graph import StepGraph
from mindgen.errors import ModelError
from mindgen.layers.attention import CacheShape
from mindgen.layers.parameters import WeightSource
from mindgen.model_config import ModelConfig
from mindgen.models.registry import build_network
from mindgen.parallel.layout import Shard, TensorLayout
from mindgen.slot_layout import SlotLayout


@dataclass(frozen=True, slots=True)
class CompiledLayout:
    """What the compiler made of a parameter: (num_ranks,) devices, the axes that are split among them, a rank's shape."""

    device_matrix: tuple[int, ...]
    tensor_map: tuple[int, ...]
    slice_shape: tuple[int, ...]


class SemiAutoNetwork:
    """A network whose weights MindSpore's compiler slices for the ranks of its communication group.

    Its weights have their Hugging Face names, so strategy files and checkpoints of this network do as well.

    Args:
        slots: for adapters; without any, no graph has LoRA ops.
        strategy_file: where to write MindSpore's strategy file.
    """

    def __init__(
        self,
        config: ModelConfig,
        cache: CacheShape,
        num_positions: int,
        dtype: str,
        slots: SlotLayout,
        strategy_file: Path | None = None,
    ) -> None:
        if dtype == "float32":
            raise ModelError("Ascend's attention ops take float16 and bfloat16, not float32")
        mindspore.set_context(mode=mindspore.GRAPH_MODE, jit_config={"jit_level": "O0"})
        init()
        self.shard = Shard(get_group_size(), None)
        self.dtype = dtype
        self._own = Shard(get_group_size(), get_rank())
        self._strategy_file = strategy_file
        self._network = build_network(config, cache, num_positions, dtype, self.shard)
        self._levels = slots.levels()
        for linear in self._network.linears():
            linear.enable_lora(self._levels)
        names = _NamesAndLayouts(dtype, self.shard)
        self._network.load(names)
        self._network.set_train(False)
        self.declared: dict[str, TensorLayout] = names.layouts | self._network.state_layouts()
        self._models: dict[tuple[bool, bool], mindspore.Model] = {}

    def compile(self, inputs: list[np.ndarray], whole_prompts: bool, with_adapters: bool) -> dict[str, CompiledLayout]:
        """Compiles one kind of step for any shapes, and checks what the compiler made of the declarations.

        Args:
            inputs: an example of what `run` takes.

        Raises:
            ModelError: the compiler refuses the network, or slices a parameter in another way than declared.
        """
        model = self._model(whole_prompts, with_adapters)
        try:
            reported = model.infer_predict_layout(*map(Tensor.from_numpy, inputs))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(f"MindSpore does not slice the network: {_reason(error)}") from error
        layouts = {name: _compiled_layout(values) for name, values in reported.items() if not name.startswith("args")}
        check_layouts(self.declared, layouts, self.shard)
        return layouts

    def load(self, folder: Path) -> None:
        """Takes this rank's part of a Hugging Face folder's weights; after `compile`."""
        self._network.load(WeightSource(map_weights(folder), self.dtype, self._own))

    def run(self, inputs: list[np.ndarray], whole_prompts: bool, with_adapters: bool) -> np.ndarray:
        """The float32 logits (R, V) of the rows asked for; the arrays of a Batch in a StepGraph's order."""
        model = self._model(whole_prompts, with_adapters)
        return model.predict(*map(Tensor.from_numpy, inputs)).asnumpy()

    def parameters(self) -> dict[str, Parameter]:
        return {parameter.name: parameter for parameter in self._network.get_parameters()}

    def _model(self, whole_prompts: bool, with_adapters: bool) -> mindspore.Model:
        kind = (whole_prompts, with_adapters)
        if kind not in self._models:
            graph = StepGraph(self._network, whole_prompts, len(self._levels) if with_adapters else 0)
            graph.make_dynamic()
            sliced = AutoParallel(graph, parallel_mode="semi_auto")
            sliced.set_inputs(*graph.get_inputs())
            sliced.dataset_strategy("full_batch")
            if self._strategy_file is not None:
                sliced.save_param_strategy_file(str(self._strategy_file))
            self._models[kind] = mindspore.Model(sliced)
        return self._models[kind]


def check_layouts(declared: Mapping[str, TensorLayout], compiled: Mapping[str, CompiledLayout], shard: Shard) -> None:
    """Compares what the compiler made with what the layers declare; parameters of no declaration are to be whole.

    Raises:
        ModelError: a parameter lies otherwise; it names the first ones.
    """
    wrong = []
    for name, layout in compiled.items():
        if name not in declared:
            wanted = CompiledLayout((shard.num_ranks,), tuple(-1 for _ in layout.tensor_map), layout.slice_shape)
            wanted_whole = all(place == -1 for place in layout.tensor_map)
            if not wanted_whole:
                wrong.append(f"{name}: {layout}, declared whole")
            continue
        axes = declared[name].axes
        wanted = CompiledLayout(
            (shard.num_ranks,), tuple(0 if axis.split_by else -1 for axis in axes), declared[name].slice_shape
        )
        if layout != wanted:
            wrong.append(f"{name}: {layout}, declared {wanted}")
    if wrong:
        raise ModelError(f"MindSpore slices {len(wrong)} parameters otherwise than declared: {'; '.join(wrong[:3])}")


class _NamesAndLayouts(WeightSource):
    """Loads nothing: gives the parameters their Hugging Face names, and notes how they are declared."""

    def __init__(self, dtype: str, shard: Shard) -> None:
        super().__init__({}, dtype, shard)
        self.layouts: dict[str, TensorLayout] = {}

    def fill(self, parameter: Parameter, name: str, layout: TensorLayout) -> None:
        parameter.name = name
        self.layouts[name] = layout

    def fill_together(self, parameter: Parameter, layouts: Mapping[str, TensorLayout]) -> None:
        ((name, layout),) = layouts.items()  # the compiler slices no packed weights
        self.fill(parameter, name, layout)


def _compiled_layout(values: Any) -> CompiledLayout:
    return CompiledLayout(tuple(values[0]), tuple(values[1]), tuple(values[2]))


def _reason(error: Exception) -> str:
    """The first lines of MindSpore's message, which goes on with a stack of its compiler."""
    return str(error).split("\n\n")[0].strip()
