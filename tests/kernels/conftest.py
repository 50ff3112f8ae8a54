from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from mindgen.kernels.library import INSTRUCTION_SETS, KernelLibrary

LIBRARY = "libmindgen_cpu.so"
REPOSITORY = Path(__file__).parents[2]


def find_library() -> Path:
    """The installed library, or the one of a development build."""
    paths = [REPOSITORY / "build" / "dev" / LIBRARY]
    try:
        paths.insert(0, Path(distribution("mindgen").locate_file(f"mindgen/kernels/{LIBRARY}")))
    except PackageNotFoundError:
        pass
    for path in paths:
        if path.exists():
            return path
    pytest.exit(f"{LIBRARY} not found: run cmake -S . -B build/dev -G Ninja && cmake --build build/dev", returncode=2)


@pytest.fixture(scope="session")
def library() -> KernelLibrary:
    return KernelLibrary(find_library())


@pytest.fixture(params=INSTRUCTION_SETS)
def kernels(request, library):
    """The library once for each instruction set of this machine."""
    if INSTRUCTION_SETS.index(request.param) > INSTRUCTION_SETS.index(library.best_instruction_set):
        pytest.skip(f"this machine has no {request.param}")
    instruction_set, num_threads = library.instruction_set, library.num_threads
    library.instruction_set = request.param
    library.num_threads = 2
    yield library
    library.instruction_set = instruction_set
    library.num_threads = num_threads
