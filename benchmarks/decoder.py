"""The matrix products of one step of a 0.5B model (Qwen2.5's shapes), all weights distinct in memory."""

import ctypes
import mmap

import numpy as np

from mindgen.kernels.library import DType, KernelLibrary

LAYERS, HIDDEN, QKV, INNER, VOCABULARY = 24, 896, 1152, 4864, 151936
SHAPES = {"qkv": (QKV, HIDDEN), "out": (HIDDEN, HIDDEN), "gate_up": (2 * INNER, HIDDEN), "down": (HIDDEN, INNER)}
PARTS = {"qkv": [896, 128, 128], "out": [HIDDEN], "gate_up": [INNER, INNER], "down": [HIDDEN]}


def random_bfloat16(*shape: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def array_in_memory(elements: int, huge_pages: bool) -> np.ndarray:
    """Random numbers of 16 bits, small ones in any dtype."""
    memory = mmap.mmap(-1, 2 * elements)
    memory.madvise(mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(memory, np.uint16)
    array[:] = np.resize(random_bfloat16(1 << 20) & 0xBFFF, elements)
    return array


class Decoder:
    """Weights of all layers and of the output, which long prompts leave out but for their last row."""

    def __init__(self, huge_pages: bool, layers: int = LAYERS, vocabulary: int = VOCABULARY):
        shapes = [shape for _ in range(layers) for shape in SHAPES.values()] + [(vocabulary, HIDDEN)]
        ends = np.cumsum([0] + [rows * depth for rows, depth in shapes])
        memory = array_in_memory(int(ends[-1]), huge_pages)
        self.weights = [memory[a:b].reshape(s) for a, b, s in zip(ends[:-1], ends[1:], shapes, strict=True)]
        self.bytes = memory.nbytes
        self.operations = 2 * memory.size  # of a row

    def calls(self, library: KernelLibrary, rows: int, dtype: DType) -> list:
        """(function, arguments) of a step."""
        inputs = {n: random_bfloat16(rows, n) for n in (HIDDEN, INNER)}
        outputs = {n: random_bfloat16(rows, n) for n in (QKV, HIDDEN, INNER, self.weights[-1].shape[0])}
        bias = random_bfloat16(QKV)
        calls = []
        for i, w in enumerate(self.weights):
            N, K = w.shape
            name = list(SHAPES)[i % 4] if i + 1 < len(self.weights) else "vocabulary"
            if N == 0:
                continue
            if name == "gate_up":
                calls.append(("linear_swiglu", inputs[K], K, w, None, outputs[INNER], rows, INNER, K, dtype, dtype))
            else:
                y = outputs[N]
                residual = y if name in ("out", "down") else None
                added = bias if name == "qkv" else None
                calls.append(("linear", inputs[K], K, w, added, residual, y, rows, N, K, dtype, dtype, dtype))
        return bind(library, calls)


class Adapters:
    """LoRA of all projections, in slots 1 and up; slot 0, the base model's, has no rows."""

    def __init__(self, slots: int, rank: int, layers: int = LAYERS):
        self.slots, self.rank = slots, rank
        self.layers = []
        sizes = [(len(p) * rank * SHAPES[n][1], *(rank * size for size in p)) for n, p in PARTS.items()]
        memory = array_in_memory((slots + 1) * layers * sum(sum(s) for s in sizes), False)
        start = 0
        for _ in range(layers):
            for name, columns in zip(PARTS, sizes, strict=True):
                arrays = []
                for size in columns:
                    arrays.append(memory[start : start + (slots + 1) * size])
                    start += (slots + 1) * size
                self.layers.append((name, *arrays))

    def calls(self, library: KernelLibrary, rows: int, dtype: DType) -> list:
        ends = np.cumsum([0] + [len(part) for part in np.array_split(np.arange(rows), self.slots)], dtype=np.int64)
        inputs = {n: random_bfloat16(rows, n) for n in (HIDDEN, INNER)}
        outputs = {n: random_bfloat16(rows, n) for n in (QKV, HIDDEN, 2 * INNER)}
        calls = []
        for name, a, *b in self.layers:
            K, sizes = SHAPES[name][1], np.array(PARTS[name], np.int64)
            level = _LoraLevel(a, b, ends, self.rank)
            y = outputs[int(sizes.sum())]
            calls.append(("add_lora", inputs[K], K, level, 1, sizes, len(b), y, rows, K, dtype, dtype))
        return bind(library, calls)


class _LoraLevel:
    """An mg_lora_level, and the arrays that it points to."""

    def __init__(self, a: np.ndarray, b: list[np.ndarray], ends: np.ndarray, rank: int):
        self.parts = (ctypes.c_void_p * len(b))(*(part.ctypes.data for part in b))
        pointers = (a.ctypes.data, ctypes.addressof(self.parts), ends.ctypes.data)
        self.record = np.array([*pointers, len(ends), rank], np.int64)
        self.arrays = (a, b, ends)


def bind(library: KernelLibrary, calls: list) -> list:
    """Addresses for arrays, which stay alive beside them: what remains is what a graph's call costs."""
    bound = []
    for name, *arguments in calls:
        arrays = [a.record if isinstance(a, _LoraLevel) else a for a in arguments]
        addresses = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arrays]
        bound.append((library.function(name), addresses, arguments))
    return bound


def run(calls: list) -> None:
    for function, arguments, _ in calls:
        function(*arguments)
