"""The network under MindSpore's SEMI_AUTO_PARALLEL, as on Ascend: the compiler slices what the layers declare.

The layers are built whole, with the strategies of their declared layouts; the compiler gives each rank its slices and
adds the collectives. What it made of the declarations is compared with them before any graph runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mindspore
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.parallel.auto_parallel import AutoParallel

from mindgen.errors import ModelError
from mindgen.layers.parameters import NotedLayouts
from mindgen.parallel.layout import Shard, TensorLayout
from mindgen.runner.step_graph import StepGraph


@dataclass(frozen=True, slots=True)
class CompiledLayout:
    """What the compiler makes of a parameter: its device matrix and tensor map, and the shape of a rank's slice."""

    device_matrix: tuple[int, ...]
    tensor_map: tuple[int, ...]
    slice_shape: tuple[int, ...]


def compile_sliced(
    graph: StepGraph, arrays: list[np.ndarray], declared: Mapping[str, TensorLayout], shard: Shard
) -> Callable[..., Tensor]:
    """The graph as a function, sliced for the ranks of MindSpore's communication group.

    Args:
        arrays: an example of its inputs.
        declared: the layouts of parameters by name; those without are whole on each rank.

    Raises:
        ModelError: the compiler refuses the graph, or slices a parameter in another way than declared.
    """
    sliced = AutoParallel(graph, parallel_mode="semi_auto")
    if graph.get_inputs() is not None:
        sliced.set_inputs(*graph.get_inputs())
    sliced.dataset_strategy("full_batch")
    model = mindspore.Model(sliced)
    try:
        reported = model.infer_predict_layout(*map(Tensor.from_numpy, arrays))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(
            f"MindSpore does not slice the network: {_reason(error)} (with GLOG_v=3 it logs why)"
        ) from error
    check_layouts(declared, read_layouts(reported), shard)
    return model.predict


def read_layouts(reported: Mapping[str, tuple]) -> dict[str, CompiledLayout]:
    """Of the parameters; what infer_predict_layout says of a graph's inputs is left out."""
    return {
        name: CompiledLayout(tuple(values[0]), tuple(values[1]), tuple(values[2]))
        for name, values in reported.items()
        if not name.startswith("args")
    }


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


class NamesAndLayouts(NotedLayouts):
    """Gives the parameters their Hugging Face names as well; there is one for each, for none are packed."""

    def fill(self, parameter: Parameter, name: str, layout: TensorLayout) -> None:
        parameter.name = name
        super().fill(parameter, name, layout)


def _reason(error: Exception) -> str:
    """MindSpore's message without the stack of its compiler that follows."""
    return str(error).split("\n\n")[0].strip()
