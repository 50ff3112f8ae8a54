import contextlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from mindgen.kernels.library import INSTRUCTION_SETS, KernelLibrary

LIBRARY = "libmindgen_cpu.so"
REPOSITORY = Path(__file__).parents[2]


def find_library() -> Path | None:
    """The installed library, or the one of a development build."""
    paths = [REPOSITORY / "build" / "dev" / LIBRARY]
    with contextlib.suppress(PackageNotFoundError):
        paths.insert(0, Path(distribution("mindgen").locate_file(f"mindgen/kernels/{LIBRARY}")))
    return next((path for path in paths if path.exists()), None)


def instruction_sets() -> tuple[str, ...]:
    """Those this machine can run."""
    path = find_library()
    best = KernelLibrary(path).best_instruction_set if path else INSTRUCTION_SETS[0]
    return INSTRUCTION_SETS[: INSTRUCTION_SETS.index(best) + 1]


@pytest.fixture(scope="session")
def library(request) -> KernelLibrary:
    path = request.config.getoption("--kernels-library") or find_library()
    if path is None:
        pytest.fail(f"{LIBRARY} not found: run cmake -S . -B build/dev -G Ninja && cmake --build build/dev")
    return KernelLibrary(path)


@pytest.fixture(params=instruction_sets())
def kernels(request, library):
    """The library once for each instruction set of this machine."""
    instruction_set, num_threads = library.instruction_set, library.num_threads
    library.instruction_set = request.param
    library.num_threads = 2
    yield library
    library.instruction_set = instruction_set
    library.num_threads = num_threads
