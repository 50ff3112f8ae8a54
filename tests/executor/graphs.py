"""Graphs described to the executor directly, through its C interface."""

import ctypes
from ctypes import c_char_p, c_int, c_int64, c_void_p
from typing import Any

import numpy as np

from mindgen.kernels.library import MAX_AXES, AllocateOutput, DType, KernelLibrary, TensorType

NUMPY = {
    DType.FLOAT32: np.float32, DType.BFLOAT16: np.uint16, DType.FLOAT16: np.float16, DType.INT32: np.int32,
    DType.INT64: np.int64,
}  # fmt: skip


def tensor_type(dtype: DType, *shape: int) -> TensorType:
    return TensorType(dtype, len(shape), (c_int64 * MAX_AXES)(*shape[:MAX_AXES]))


class Graph:
    """Values are numbers, as in mindgen_executor.h."""

    def __init__(self, library: KernelLibrary, fuse: bool = True) -> None:
        self._library = library
        create = library.function("graph_create")
        create.restype = c_void_p
        self._graph = c_void_p(create(fuse))
        self._types: list[TensorType] = []

    def _call(self, name: str, *args: Any) -> int:
        return self._library.function(f"graph_{name}")(self._graph, *args)

    def _checked(self, value: int) -> int:
        if value < 0:
            raise ValueError(self._library.last_error)
        return value

    def input(self, dtype: DType, *shape: int) -> int:
        self._types.append(tensor_type(dtype, *shape))
        return self._checked(self._call("add_input", ctypes.byref(self._types[-1])))

    def constant(self, value: Any) -> int:
        if value is None:
            return self._call("add_none")
        if isinstance(value, bool):
            return self._call("add_bool", ctypes.c_bool(value))
        if isinstance(value, int):
            return self._call("add_int", c_int64(value))
        if isinstance(value, float):
            return self._call("add_float", ctypes.c_float(value))
        return self._call("add_ints", (c_int64 * len(value))(*value), len(value))

    def node(self, op: str, *inputs: Any, outputs: list[TensorType]) -> int:
        """The first output's number; inputs are values, or constants in a list of one."""
        values = [self.constant(given[0]) if isinstance(given, list) else given for given in inputs]
        return self._checked(
            self._call(
                "add_node",
                c_char_p(op.encode()),
                c_char_p(f"layer/{op}".encode()),
                (c_int * len(values))(*values),
                len(values),
                (TensorType * len(outputs))(*outputs),
                len(outputs),
            )
        )

    def compile(self, *outputs: int) -> "Graph":
        for status in (
            self._call("set_outputs", (c_int * len(outputs))(*outputs), len(outputs)),
            self._call("compile"),
        ):
            self._checked(-status)
        return self

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        return self.run_parts([list(arrays)])

    def run_parts(self, parts: list[list[np.ndarray]]) -> list[np.ndarray]:
        outputs: dict[int, np.ndarray] = {}

        def allocate(_context: Any, index: int, wanted: Any) -> int:
            found = wanted.contents
            outputs[index] = np.zeros(list(found.shape)[: found.ndim], NUMPY[DType(found.dtype)])
            return outputs[index].ctypes.data

        arrays = [array for part in parts for array in part]
        data = (c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        shapes = (c_int64 * (MAX_AXES * len(arrays)))()
        for index, array in enumerate(arrays):
            shapes[index * MAX_AXES : index * MAX_AXES + array.ndim] = array.shape
        callback = AllocateOutput(allocate)
        self._checked(-self._call("run_parts", data, shapes, len(parts[0]), len(parts), callback, None))
        return [outputs[index] for index in sorted(outputs)]

    def kernels(self) -> list[str]:
        describe = self._library.function("graph_describe")
        describe.restype = c_char_p
        return [line.split("\t")[0] for line in describe(self._graph).decode().splitlines()]

    def close(self) -> None:
        self._call("destroy")
