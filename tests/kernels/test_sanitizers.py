"""The kernel and executor tests once more, on a library that watches its memory accesses and its arithmetic."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def runtime(name: str) -> str:
    """The compiler's library of that name, which must be loaded before all else."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.slow
def test_address_and_undefined_behaviour(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("building the library needs cmake")
    build = ["cmake", "--build", tmp_path, "-j2", "--target", "mindgen_cpu"]
    # Kernels that this machine cannot run would only be built.
    amx = "ON" if "amx_bf16" in Path("/proc/cpuinfo").read_text() else "OFF"
    configure = ["cmake", "-S", REPOSITORY, "-B", tmp_path, "-DMINDGEN_SANITIZE=ON", f"-DMINDGEN_AMX={amx}"]
    for command in (configure, build):
        subprocess.run(command, check=True, capture_output=True)
    library = tmp_path / "libmindgen_cpu.so"
    tests = ["tests/kernels", "tests/executor/test_graph.py"]
    # Popularities and draws are about numbers: their accesses are those of test_lora and of the rest of test_sampling.
    files = ("test_sanitizers", "test_emulated_tiles", "test_popularities")
    skipped = [*(f"--ignore=tests/kernels/{name}.py" for name in files), "-k", "not chi_square"]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-s", f"--kernels-library={library}", *skipped]
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
    }
    command = [sys.executable, "-m", "pytest", *options, *tests]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
