"""Finds libmindgen_cpu, and makes MindSpore on the CPU serve Ascend's inference ops from it."""

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mindgen.errors import KernelError
from mindgen.kernels.library import KernelLibrary
from mindgen.system import environment

_REBUILD = "run `pip install -e .` in mindgen's folder (it needs g++ and CMake)"


def library_path() -> Path | None:
    """Where the installation put libmindgen_cpu.so, or None when there is none."""
    try:
        path = Path(str(distribution("mindgen").locate_file("mindgen/kernels/libmindgen_cpu.so")))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def announce() -> None:
    """Tells MindSpore of the library, if it is not too late; `load` reports what is wrong."""
    path = library_path()
    if path is not None and not environment.is_mindspore_imported():
        environment.set_op_plugin(str(path))
        environment.quiet_mindspore()


@cache
def load_kernels() -> KernelLibrary:
    """The library alone, for what needs no MindSpore.

    Raises:
        KernelError: it is missing, or does not load.
    """
    path = library_path()
    if path is None:
        raise KernelError(f"the CPU kernels (libmindgen_cpu.so) are not built: {_REBUILD}")
    return KernelLibrary(path)


@cache
def load() -> KernelLibrary:
    """The library that MindSpore's CPU ops run on.

    Raises:
        KernelError: it is missing, does not load, is of another version, or MindSpore does not know of it.
    """
    library = load_kernels()
    if environment.op_plugin() != library.path:
        raise KernelError(
            "mindspore was imported before mindgen, so its CPU has none of mindgen's ops: import mindgen first"
        )
    version = distribution("mindgen").version
    if library.version != version:
        raise KernelError(f"the CPU kernels are of version {library.version}, mindgen of {version}: {_REBUILD}")
    return library
