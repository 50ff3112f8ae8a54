"""The network under MindSpore's SEMI_AUTO_PARALLEL, as on Ascend: the compiler slices what the layers declare.

The layers are built whole, with the strategies of their declared layouts; the compiler gives each rank its slices and
adds the collectives. What it made of the declarations is compared with them before any weight is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.communication import get_group_size, get_rank, init
from mindspore.parallel.auto_parallel import AutoParallel

from mindgen.checkpoint.hf import map_weights
from mindgen.engine.adapter_rows import AdapterInputs
from mindgen.engine.step_graph import StepGraph
from mindgen.errors import ModelError
from mindgen.layers.attention import CacheShape
from mindgen.layers.parameters import NotedLayouts, WeightSource
from mindgen.model_config import ModelConfig
from mindgen.models.causal_lm import refuse_unknown
from mindgen.models.registry import build_network
from mindgen.parallel.layout import Shard, TensorLayout
from mindgen.slot_layout import SlotLayout


@dataclass(frozen=True, slots=True)
class CompiledLayout:
    """What the compiler makes of a parameter: its device matrix and tensor map, and the shape of a rank's slice."""

    device_matrix: tuple[int, ...]
    tensor_map: tuple[int, ...]
    slice_shape: tuple[int, ...]


class SemiAutoNetwork:
    """A network that MindSpore's compiler slices for the ranks of its communication group.

    Its weights have their Hugging Face names, and so have its strategy files. The vocabulary is padded until it divides
    among the ranks; the logits of the padding are behind the others.

    Args:
        num_positions: rows of the rotary tables, more than any batch has tokens.
        slots: for LoRA of the layers' linears, which is all that is served here; none for no graphs with adapters.
        dynamic: compile for any shapes; MindSpore's dry run walks through graphs of fixed shapes only.
        strategy_file: where to write MindSpore's strategy file.

    Attributes:
        declared: the layouts of weights, caches and adapters' weights, by parameter name.
    """

    def __init__(
        self,
        config: ModelConfig,
        cache: CacheShape,
        num_positions: int,
        dtype: str,
        slots: SlotLayout,
        dynamic: bool = True,
        strategy_file: Path | None = None,
    ) -> None:
        if dtype == "float32":
            raise ModelError("Ascend's attention ops take float16 and bfloat16, not float32")
        mindspore.set_context(mode=mindspore.GRAPH_MODE, jit_config={"jit_level": "O0"})
        init()
        num_ranks = get_group_size()
        self._compiler, self._own = Shard(num_ranks, None), Shard(num_ranks, get_rank())
        self._architecture, self._dtype = config.architecture, dtype
        self._dynamic = dynamic
        self._strategy_file = strategy_file
        self._network = build_network(config, cache, num_positions, dtype, self._compiler)
        self._network.set_train(False)
        # On a card every row belongs to a group: those of the base model to a last slot, which stays zero.
        self._levels = [level._replace(num_slots=level.num_slots + 1) for level in slots.levels()]
        for linear in self._network.linears():
            linear.enable_lora(self._levels)
        names = _NamesAndLayouts(dtype, self._compiler)
        self._network.load(names)
        self.declared: dict[str, TensorLayout] = names.layouts | self._network.state_layouts()
        self._models: dict[tuple[bool, bool], mindspore.Model] = {}

    def compile(self, arrays: list[np.ndarray], whole_prompts: bool, with_adapters: bool) -> dict[str, CompiledLayout]:
        """Compiles one kind of step; returns what the compiler makes of the parameters, by name.

        Args:
            arrays: an example of what `run` takes.

        Raises:
            ModelError: the compiler refuses the network, or slices a parameter in another way than declared.
        """
        try:
            reported = self._model(whole_prompts, with_adapters).infer_predict_layout(*map(Tensor.from_numpy, arrays))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(
                f"MindSpore does not slice the network: {_reason(error)} (with GLOG_v=3 it logs why)"
            ) from error
        layouts = {
            name: CompiledLayout(tuple(values[0]), tuple(values[1]), tuple(values[2]))
            for name, values in reported.items()
            if not name.startswith("args")
        }
        check_layouts(self.declared, layouts, self._compiler)
        return layouts

    def load(self, folder: Path) -> None:
        """Takes this rank's slices of a Hugging Face folder's weights; after `compile`, which needs whole shapes."""
        tensors = self._network.translate(map_weights(folder))
        refuse_unknown(self._architecture, self._network.load(WeightSource(tensors, self._dtype, self._own)))

    def run(self, arrays: list[np.ndarray], whole_prompts: bool, with_adapters: bool) -> np.ndarray:
        """The float32 logits (R, padded vocabulary).

        Args:
            arrays: those of a Batch in StepGraph's order; each level's segment_ends end with the number of tokens.
        """
        return self._model(whole_prompts, with_adapters).predict(*map(Tensor.from_numpy, arrays)).asnumpy()

    def parameters(self) -> dict[str, Parameter]:
        return {parameter.name: parameter for parameter in self._network.get_parameters()}

    def _model(self, whole_prompts: bool, with_adapters: bool) -> mindspore.Model:
        kind = (whole_prompts, with_adapters)
        if kind not in self._models:
            graph = StepGraph(self._network, whole_prompts, AdapterInputs(len(self._levels) if with_adapters else 0))
            sliced = AutoParallel(graph, parallel_mode="semi_auto")
            if self._dynamic:
                graph.make_dynamic()
                sliced.set_inputs(*graph.get_inputs())
            sliced.dataset_strategy("full_batch")
            if self._strategy_file is not None:
                sliced.save_param_strategy_file(str(self._strategy_file))
            self._models[kind] = mindspore.Model(sliced)
        return self._models[kind]


def check_layouts(declared: Mapping[str, TensorLayout], compiled: Mapping[str, CompiledLayout], shard: Shard) -> None:
    """Compares what the compiler makes with what the layers declare; parameters without a declaration are whole.

    Raises:
        ModelError: a parameter lies otherwise.
    """
    wrong = []
    for name, layout in compiled.items():
        wanted = CompiledLayout((shard.num_ranks,), (-1,) * len(layout.tensor_map), layout.slice_shape)
        if name in declared:
            cuts = tuple(0 if axis.split_by else -1 for axis in declared[name].axes)
            wanted = CompiledLayout((shard.num_ranks,), cuts, declared[name].slice_shape)
        if layout != wanted:
            wrong.append(f"{name} is {layout}, declared {wanted}")
    if wrong:
        raise ModelError(f"MindSpore slices {len(wrong)} parameters otherwise than declared: {'; '.join(wrong[:3])}")


class _NamesAndLayouts(NotedLayouts):
    """Gives the parameters their Hugging Face names as well; there is one for each, for none are packed."""

    def fill(self, parameter: Parameter, name: str, layout: TensorLayout) -> np.ndarray:
        parameter.name = name
        return super().fill(parameter, name, layout)


def _reason(error: Exception) -> str:
    """MindSpore's message without the stack of its compiler that follows."""
    return str(error).split("\n\n")[0].strip()
