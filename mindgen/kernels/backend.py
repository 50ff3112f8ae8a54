"""Makes MindSpore on the CPU run compiled graphs on mindgen's executor.

The layer between them, csrc/backend, needs MindSpore's headers and is tied to its version, so it is compiled on this
machine at its first use, and kept for the next.
"""

import ctypes
import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

import mindspore
from mindspore import Tensor, graph, nn
from mindspore.graph.api import JitExecutor_, ms_compile_cache

from mindgen.errors import KernelError
from mindgen.kernels import plugin
from mindgen.kernels.compiler import find_compiler
from mindgen.system import environment

# Who runs compiled graphs: mindgen's executor, the same without making one kernel of several ops, MindSpore's runtime.
EXECUTORS = ("mindgen", "mindgen_unfused", "mindspore")
_NAME = "mindgen"

_SOURCES = Path(__file__).parent / "csrc"
_FLAGS = ["-shared", "-fPIC", "-O2", "-std=c++17", "-D_GLIBCXX_USE_CXX11_ABI=0", "-DENABLE_FAST_HASH_TABLE=1"]
_INCLUDES = [
    "", "include", "include/third_party", "include/third_party/robin_hood_hashing", "include/mindspore/include",
    "include/third_party/securec/include", "include/mindspore/core/include", "include/mindspore/core/mindrt/include",
    "include/mindspore/core/mindrt", "include/mindspore/ops", "include/mindspore/ops/include",
    "include/mindspore/ops/kernel/include", "include/mindspore/ccsrc", "include/mindspore/ccsrc/include",
]  # fmt: skip


def available(executor: str) -> str:
    """That executor, one of EXECUTORS; or MindSpore's where mindgen's cannot be made to work, and why on stderr."""
    return executor if executor == "mindspore" or _is_registered() else "mindspore"


class CompiledGraph:
    """A cell as a function that MindSpore compiles at its first call; that executor runs it, an available one."""

    def __init__(self, cell: nn.Cell, executor: str) -> None:
        self._cell = cell
        # MindSpore's name for compiling with fusion is O1.
        level = "O1" if executor == "mindgen" else "O0"
        name = "ms_backend" if executor == "mindspore" else _NAME
        self._compiled: Callable[..., Tensor] = mindspore.jit(cell, backend=name, jit_level=level)

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self._compiled(*inputs)

    def release(self) -> None:
        """Gives its memory back, which MindSpore keeps, with the parameters' own, for as long as the process lives."""
        if not threading.main_thread().is_alive():  # the process ends, and MindSpore may have done so before
            return
        own = f".{self._cell.create_time}{self._cell.phase}.{id(self._cell)}."
        phases = {phase for phase in ms_compile_cache if own in phase}
        executor = JitExecutor_.get_instance()
        executor.del_net_res(None, phases)
        executor.set_weights_values({})  # the last compiled cell's parameters
        ms_compile_cache.difference_update(phases)


class GraphCall(ctypes.Structure):
    """mg_graph_call of csrc/include/mindgen_executor.h."""

    _fields_: ClassVar = [
        ("graph", ctypes.c_void_p),
        ("num_inputs", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("shapes", ctypes.POINTER(ctypes.c_int64)),
        ("lowering_seconds", ctypes.c_double),
    ]


def last_run() -> GraphCall:
    """This thread's last run through MindSpore; its graph is None where MindSpore's runtime made it."""
    find = ctypes.CDLL(str(_compiled_library())).mindgen_backend_last_run
    find.restype = ctypes.POINTER(GraphCall)
    return find().contents


@cache
def _is_registered() -> bool:
    try:
        _register()
    except KernelError as error:
        print(f"mindgen: MindSpore's runtime runs the network, more slowly: {error}", file=sys.stderr)
        return False
    return True


def _register() -> None:
    """Registers the backend with MindSpore, compiling the layer if this machine has not done so yet.

    Raises:
        KernelError: there is no compiler, or MindSpore does not take the backend; it says why.
    """
    executor = plugin.load().executor_functions()
    path = _compiled_library()
    if not graph.register_custom_backend(_NAME, str(path)):
        raise KernelError(f"MindSpore {mindspore.__version__} does not take the graph backend {path}")
    ctypes.CDLL(str(path)).mindgen_backend_bind(ctypes.c_void_p(executor))


def _compiled_library() -> Path:
    sources = sorted((_SOURCES / "backend").glob("*.cc"))
    headers = [*sorted((_SOURCES / "backend").glob("*.h")), *sorted((_SOURCES / "include").glob("*.h"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in [*sources, *headers]))
    digest.update(" ".join([*_FLAGS, sys.version]).encode())
    folder = environment.cache_folder()
    path = folder / f"mindspore-{mindspore.__version__}-{digest.hexdigest()[:16]}.so"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes that start at once compile once
            if not path.is_file():
                _compile(sources, path)
    except OSError as error:
        raise KernelError(f"cannot write to {folder}: {error.strerror}") from error
    return path


def _compile(sources: list[Path], target: Path) -> None:
    compiler = find_compiler()
    if compiler is None:
        raise KernelError("there is no C++ compiler (Debian, Ubuntu: apt install g++)")
    print(
        f"mindgen: compiling the graph backend for MindSpore {mindspore.__version__}, once on this machine "
        f"(about a minute)",
        file=sys.stderr,
        flush=True,
    )
    root = Path(mindspore.__file__).parent
    includes = [*(root / include for include in _INCLUDES), sysconfig.get_paths()["include"]]
    includes.append(_SOURCES / "include")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch) / target.name
        command = [compiler, *_FLAGS, *(f"-I{include}" for include in includes), *map(str, sources), "-o", str(built)]
        command += [f"-L{root / 'lib'}", "-lmindspore_core", "-lmindspore_backend_manager"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise KernelError(f"the graph backend does not compile: {_first_error(done.stderr)}")
        os.replace(built, target)


def _first_error(log: str) -> str:
    lines = [line for line in log.splitlines() if "error" in line]
    return lines[0] if lines else log.strip()[-200:]
