"""The C interface of csrc/include/mindgen_kernels.h, bound with ctypes.

Buffers are passed as addresses: an int, or a numpy array (contiguous), or None for NULL.
"""

import ctypes
import enum
import mmap
from ctypes import POINTER, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int64, c_uint64, c_void_p
from typing import Any, ClassVar

import numpy as np

from mindgen.errors import KernelError

INSTRUCTION_SETS = ("portable", "avx2", "avx512", "amx")


class DType(enum.IntEnum):
    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT16 = 2
    FLOAT64 = 3
    INT32 = 4
    INT64 = 5
    BOOL = 6
    INT8 = 7
    INT16 = 8
    UINT8 = 9
    UINT16 = 10
    UINT32 = 11
    UINT64 = 12


class _Buffer(c_void_p):
    """A void* that also takes numpy arrays."""

    @classmethod
    def from_param(cls, value):
        interface = getattr(value, "__array_interface__", None)
        if interface is None:
            return c_void_p.from_param(value)
        if interface["strides"] is not None:
            raise TypeError("buffers must be contiguous, this array is not")
        return c_void_p.from_param(interface["data"][0])


# One letter per parameter, as in the header.
_TYPES = {
    "p": _Buffer, "P": POINTER(c_void_p), "n": c_int64, "u": c_uint64, "i": c_int, "f": c_float, "b": c_bool,
    "d": c_int,
}  # fmt: skip
_SIGNATURES = {
    "matmul": "pppp nnnn bb d",
    "dequantize": "pdpdn",
    "linear": "pn pppp nnn ddd",
    "linear_swiglu": "pn ppp nnn dd",
    "grouped_matmul": "pppp nnnn b d",
    "add_lora": "pn pi pi p nn dd",
    "measure_read_bandwidth": "pn",
    "measure_product_rate": "d",
    "rms_norm": "pppp nn f d",
    "add_rms_norm": "pppppp nn f d",
    "layer_norm": "pppppp nn f d",
    "apply_rotary": "ppppppp nnnnnn b d",
    "reshape_and_cache": "ppppp nnn",
    "paged_attention": "ppppppp nnnnnnnn f d",
    "flash_attention": "pppppp nnnnnn f d",
    "swiglu": "pp nn d",
    "silu": "pp n d",
    "gelu": "pp n d",
    "gelu_erf": "pp n d",
    "add": "ppp i ppp d",
    "mul": "ppp i ppp d",
    "sum": "Pi p n d",
    "cast": "pdpd n",
    "scale_transpose": "pnd pnd nn f",
    "scale_transpose_all": "pn",
    "gather": "ppdp nnnn",
    "embedding_lookup": "ppdp nnnn",
    "concat": "Pp i p n",
    "split": "pPp i n",
    "copy": "pp n",
    "compare": "pp n p",
    "are_finite": "p n d p",
    "copy_finite": "pp n d p",
    "copy_all": "pn",
    "sample": "ppppp nnn",
    "philox_uniforms": "uu p n",
    "all_reduce": "ppp n d",
    "gather_columns": "ppp nnn",
}


MAX_AXES = 8


class TensorType(ctypes.Structure):
    """mg_tensor_type of csrc/include/mindgen_executor.h."""

    _fields_: ClassVar = [("dtype", c_int), ("ndim", c_int), ("shape", c_int64 * MAX_AXES)]


AllocateOutput = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_int, POINTER(TensorType))


class KernelCallRecord(ctypes.Structure):
    """mg_kernel_call of csrc/include/mindgen_executor.h; times in nanoseconds of time.monotonic_ns()."""

    _fields_: ClassVar = [
        ("op", c_char_p),
        ("name", c_char_p),
        ("start_ns", c_int64),
        ("duration_ns", c_int64),
        ("bytes", c_int64),
        ("operations", c_int64),
        ("recording_ns", c_int64),
    ]


# Those that return something else than a status: what they return, and what they take. A library of kernels alone lacks
# those of the executor.
_OTHER_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "group_bytes": (c_int64, [c_int]),
    "group_join": (c_void_p, [c_int, c_int, c_int]),
    "group_link": (c_int, [c_void_p, c_int, c_int, POINTER(c_int)]),
    "group_leave": (None, [c_void_p]),
    "group_abort": (None, [c_void_p, c_char_p]),
    "use_group": (None, [c_void_p]),
    "executor_functions": (c_void_p, []),
    "graph_run_parts": (c_int, [c_void_p, c_void_p, c_void_p, c_int, c_int, AllocateOutput, c_void_p]),
    "profile_start": (None, []),
    "profile_stop": (c_int64, []),
    "profile_read": (None, [POINTER(KernelCallRecord), c_int64]),
}


def _load(path: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path)
        library.mg_version.restype = c_char_p
    except (OSError, AttributeError) as error:
        raise KernelError(f"cannot load the CPU kernels: {error}") from error
    library.mg_last_error.restype = c_char_p
    library.mg_set_error.argtypes = [c_char_p]
    for name, letters in _SIGNATURES.items():
        function = getattr(library, f"mg_{name}", None)
        if function is not None:
            function.argtypes = [_TYPES[letter] for letter in letters.replace(" ", "")]
            function.restype = c_double if name.startswith("measure_") else c_int
    for name, (result, arguments) in _OTHER_SIGNATURES.items():
        function = getattr(library, f"mg_{name}", None)
        if function is not None:
            function.restype, function.argtypes = result, arguments
    return library


class KernelLibrary:
    """The kernels of libmindgen_cpu.so; the instruction set and the number of threads hold for the whole process."""

    def __init__(self, path):
        self.path = str(path)
        self._library = _load(self.path)

    @property
    def version(self) -> str:
        return self._library.mg_version().decode()

    @property
    def best_instruction_set(self) -> str:
        return INSTRUCTION_SETS[self._library.mg_best_instruction_set()]

    @property
    def instruction_set(self) -> str:
        return INSTRUCTION_SETS[self._library.mg_get_instruction_set()]

    @instruction_set.setter
    def instruction_set(self, name: str) -> None:
        if name not in INSTRUCTION_SETS:
            raise KernelError(f"instruction set {name!r} is not one of {', '.join(INSTRUCTION_SETS)}")
        self._check(self._library.mg_set_instruction_set(INSTRUCTION_SETS.index(name)))

    @property
    def num_threads(self) -> int:
        return self._library.mg_get_num_threads()

    @num_threads.setter
    def num_threads(self, count: int) -> None:
        self._check(self._library.mg_set_num_threads(count))

    @property
    def last_error(self) -> str:
        """What the last refused call said; empty when none was."""
        return self._library.mg_last_error().decode()

    def clear_last_error(self) -> None:
        self._library.mg_set_error(b"")

    def executor_functions(self) -> int:
        """The address of the mg_executor table, for what runs graphs on these kernels."""
        return self._library.mg_executor_functions()

    def are_same(self, x: np.ndarray, y: np.ndarray) -> bool:
        """Whether arrays, each in one piece, hold the same bits."""
        if x.nbytes != y.nbytes:
            return False
        same = np.zeros(1, np.int32)
        self.call("compare", x, y, x.nbytes, same)
        return bool(same[0])

    def copy(self, x: np.ndarray, y: np.ndarray) -> bool:
        """Copies x to y, each in one piece; whether y has the same bits then."""
        if x.nbytes != y.nbytes:
            return False
        self.call("copy", x, y, x.nbytes)
        return self.are_same(x, y)

    def are_finite(self, x: np.ndarray, dtype: DType) -> bool:
        """Whether no value of an array in one piece, in the storage of dtype, is infinite or NaN."""
        finite = np.zeros(1, np.int32)
        self.call("are_finite", x, x.size, dtype, finite)
        return bool(finite[0])

    def copy_finite(self, x: np.ndarray, y: np.ndarray, dtype: DType) -> bool:
        """Copies x to y, each in one piece, in the caller's thread alone; whether y `are_finite` then."""
        assert x.nbytes == y.nbytes and x.size == y.size
        finite = np.zeros(1, np.int32)
        self.call("copy_finite", x, y, x.size, dtype, finite)
        return bool(finite[0])

    def measure_read_bandwidth(self) -> float:
        """Bytes per second of all threads reading memory, no cache holding it."""
        size = 256 << 20
        memory = mmap.mmap(-1, size)
        memory.madvise(mmap.MADV_HUGEPAGE)
        address = ctypes.addressof(c_char.from_buffer(memory))
        ctypes.memset(address, 1, size)
        return self._library.mg_measure_read_bandwidth(address, size)

    def measure_product_rate(self, dtype: DType) -> float:
        """Floating point operations per second of all threads at best, two to a multiplication."""
        return self._library.mg_measure_product_rate(dtype)

    def run_graph(self, graph: int, data: Any, shapes: Any, num_inputs: int, num_parts: int, allocate: Any) -> None:
        """mg_graph_run_parts of csrc/include/mindgen_executor.h, or KernelError with its message."""
        self._check(self._library.mg_graph_run_parts(graph, data, shapes, num_inputs, num_parts, allocate, None))

    def start_profile(self) -> None:
        """From now on every run of a graph records its kernel calls."""
        self._library.mg_profile_start()

    def stop_profile(self) -> "ctypes.Array[KernelCallRecord]":
        """The calls recorded; their strings live as long as the graphs."""
        count = self._library.mg_profile_stop()
        records = (KernelCallRecord * count)()
        self._library.mg_profile_read(records, count)
        return records

    def function(self, name: str) -> Any:
        """mg_<name>, whose status nobody checks."""
        return getattr(self._library, f"mg_{name}")

    def call(self, name: str, *args: Any) -> None:
        """mg_<name>(*args), or KernelError with its message."""
        self._check(self.function(name)(*args))

    def _check(self, status: int) -> None:
        if status != 0:
            raise KernelError(self._library.mg_last_error().decode())
