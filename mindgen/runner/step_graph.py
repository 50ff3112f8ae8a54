"""The network compiled for one kind of step, and called with numpy arrays."""

import ctypes
from typing import Any

import mindspore
import numpy as np
from mindspore import Tensor, nn

from mindgen.kernels import backend
from mindgen.kernels.library import MAX_AXES, AllocateOutput, KernelLibrary
from mindgen.layers.parameters import as_tensor
from mindgen.layers.step_inputs import NUM_STEP_INPUTS, StepInputs
from mindgen.runner.adapter_rows import AdapterInputs

_NO_LOGITS: np.ndarray = np.empty(0, np.float32)


class StepGraph(nn.Cell):
    """The network with all that is fixed for one kind of step; graphs share its parameters."""

    def __init__(self, network: nn.Cell, whole_prompts: bool, adapter_inputs: AdapterInputs) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.whole_prompts = whole_prompts
        self.num_levels, self.has_slots, self.table_levels, self.head_levels = adapter_inputs

    def make_dynamic(self, hidden: Tensor | None = None) -> None:
        """hidden: what a pipeline stage gets in place of token ids, its shape with None for the number of tokens."""
        tokens = Tensor(shape=[None], dtype=mindspore.int32)
        tables = Tensor(shape=[None, None], dtype=mindspore.int32)
        step: StepInputs[Tensor] = StepInputs(*[tokens] * NUM_STEP_INPUTS)
        inputs = [*step._replace(inputs=tokens if hidden is None else hidden, block_tables=tables)]
        ends = Tensor(shape=[None], dtype=mindspore.int64)
        inputs += [ends] * self.num_levels
        if self.has_slots:
            inputs += [tokens, tokens] + [tokens] * self.table_levels + [ends] * self.head_levels
        self.set_inputs(*inputs)

    def construct(self, inputs: Tensor, batch_valid_length: Tensor, q_seq_lens: Tensor, *others: Tensor) -> Tensor:
        """The first of StepInputs and the others; cards find the lengths among a graph's inputs, by these two names.

        Then come those of adapter_arrays.
        """
        step = (inputs, batch_valid_length, q_seq_lens, *others[: NUM_STEP_INPUTS - 3])
        adapter_inputs = others[NUM_STEP_INPUTS - 3 :]
        ends = adapter_inputs[: self.num_levels]
        adapter_rows, output_adapter_rows, table_rows = (ends, None), ((), None), ()
        if self.has_slots:
            slots, output_slots = adapter_inputs[self.num_levels], adapter_inputs[self.num_levels + 1]
            first = self.num_levels + 2
            table_rows = adapter_inputs[first : first + self.table_levels]
            adapter_rows = (ends, slots)
            output_adapter_rows = (adapter_inputs[first + self.table_levels :], output_slots)
        return self.network(step, adapter_rows, output_adapter_rows, table_rows, self.whole_prompts)


class CompiledStep:
    """A StepGraph compiled at its first call, which goes through MindSpore.

    Later calls go to the executor directly where it runs the graph: MindSpore's way into it takes longer than anything
    else outside the kernels. The parameters must stay where they are in memory.

    Args:
        input_dtype: of the first input: token ids, or hidden states.
        output_memory: for logits or hidden states, in their storage; if it is too small, they get their own.

    Attributes:
        lowering_seconds: that the executor took to make its graph of MindSpore's; None where it does not run it.
    """

    def __init__(
        self,
        graph: StepGraph,
        executor: str,
        kernels: KernelLibrary,
        input_dtype: str = "int32",
        output_memory: np.ndarray = _NO_LOGITS,
    ) -> None:
        self._input_dtype = input_dtype
        self._output_memory = output_memory
        self._compiled = backend.CompiledGraph(graph, executor)
        self._is_backend = executor != "mindspore"
        self._kernels = kernels
        self._direct: _DirectCall | None = None
        self.lowering_seconds: float | None = None

    @property
    def takes_parts(self) -> bool:
        return self._direct is not None

    def __call__(self, parts: list[list[np.ndarray]]) -> np.ndarray:
        """The logits or hidden states of all parts of a batch, whose arrays are contiguous; good until the next call.

        Raises:
            KernelError, RuntimeError: a kernel refused its inputs; the latter from MindSpore.
        """
        if self._direct is not None:
            return self._direct(parts)
        (arrays,) = parts
        first, *others = arrays
        output = self._compiled(as_tensor(first, self._input_dtype), *map(Tensor.from_numpy, others)).asnumpy()
        run = backend.last_run() if self._is_backend else None
        if run is not None and run.graph is not None:
            self._direct = _DirectCall(self._kernels, run, arrays, self._output_memory)
            self.lowering_seconds = run.lowering_seconds
        return output.view(self._output_memory.dtype)

    def release(self) -> None:
        """As CompiledGraph's; it cannot be called afterwards."""
        self._direct = None
        self._compiled.release()


class _DirectCall:
    """Calls the executor's graph with new arrays, and with the parameters of the run that it copies."""

    def __init__(
        self, kernels: KernelLibrary, run: backend.GraphCall, arrays: list[np.ndarray], memory: np.ndarray
    ) -> None:
        self._kernels = kernels
        self._graph, self._num_inputs = run.graph, run.num_inputs
        self._dtypes = [array.dtype for array in arrays]
        # (parts, inputs) and (parts, inputs, axes)
        self._data = np.array(run.data[: run.num_inputs], np.uintp)[None]
        self._shapes = np.array(run.shapes[: run.num_inputs * MAX_AXES], np.int64).reshape(1, -1, MAX_AXES)
        self._part_shapes: list[list[tuple[int, ...]]] = []  # those in _shapes
        self._memory, self._memory_address = memory, memory.ctypes.data
        self._output = memory[:0].reshape(0, 0)
        self._allocate = AllocateOutput(self._allocate_output)

    def __call__(self, parts: list[list[np.ndarray]]) -> np.ndarray:
        if len(self._data) < len(parts):
            self._data = np.repeat(self._data[:1], len(parts), axis=0)
            self._shapes = np.repeat(self._shapes[:1], len(parts), axis=0)
        count = len(self._dtypes)
        for part in parts:
            assert [array.dtype for array in part] == self._dtypes, "the graph is compiled for its first dtypes"
        self._data[: len(parts), :count] = [[_address(array) for array in part] for part in parts]
        part_shapes = [[array.shape for array in part] for part in parts]
        if part_shapes != self._part_shapes:
            self._part_shapes = part_shapes
            self._shapes[: len(parts), :count, :2] = [[(*shape, 0)[:2] for shape in part] for part in part_shapes]
        tables = _address(self._data), _address(self._shapes)
        self._kernels.run_graph(self._graph, *tables, self._num_inputs, len(parts), self._allocate)
        return self._output

    def _allocate_output(self, _context: Any, _index: int, wanted: Any) -> int:
        """Memory of the run before where it is large enough: fresh pages cost as much as a small matrix product."""
        rows, columns = wanted.contents.shape[:2]
        if self._output.shape != (rows, columns):
            if self._memory.size < rows * columns:
                self._memory = np.empty(rows * columns, self._memory.dtype)
                self._memory_address = self._memory.ctypes.data
            self._output = self._memory[: rows * columns].reshape(rows, columns)
        return self._memory_address


def _address(array: np.ndarray) -> int:
    """As array.ctypes.data, in a third of the time."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data)) if array.size else 0
