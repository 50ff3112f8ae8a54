"""The AMX kernels on machines without AMX: the same sources over tiles emulated in plain C++."""

import shutil
import subprocess
from pathlib import Path

import pytest
import test_grouped_matmul
import test_linear
import test_matmul

from mindgen.kernels.library import KernelLibrary

REPOSITORY = Path(__file__).parents[2]
TARGET = "mindgen_emulated_tiles"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    if shutil.which("cmake") is None:
        pytest.skip("building the emulation needs cmake")
    folder = tmp_path_factory.mktemp("build")
    for command in (["cmake", "-S", REPOSITORY, "-B", folder], ["cmake", "--build", folder, "-j2", "--target", TARGET]):
        subprocess.run(command, check=True, capture_output=True)
    library = KernelLibrary(folder / f"lib{TARGET}.so")
    library.num_threads = 2
    return library


@pytest.mark.parametrize("M", [1, 2, 8, 9, 16, 17, 32, 33, 48, 100])
def test_numbers_of_rows(kernels, M):
    test_matmul.check(kernels, "bfloat16", M, 37, 75)


@pytest.mark.parametrize("N", [1, 15, 16, 17, 31, 32, 33, 64, 257, 300])
def test_numbers_of_columns(kernels, N):
    test_matmul.check(kernels, "bfloat16", 20, N, 70)


@pytest.mark.parametrize("K", [0, 1, 2, 31, 32, 33, 63, 255, 256, 257, 544, 1030])
@pytest.mark.parametrize("M", [20, 40])
def test_depths(kernels, M, K):
    test_matmul.check(kernels, "bfloat16", M, 19, K)


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_w", [False, True])
@pytest.mark.parametrize("M, N, K", [(1, 40, 70), (9, 33, 35), (50, 7, 300), (130, 65, 97)])
def test_transposes(kernels, transpose_x, transpose_w, M, N, K):
    test_matmul.check(kernels, "bfloat16", M, N, K, transpose_x=transpose_x, transpose_w=transpose_w, batch=2)


@pytest.mark.parametrize("N", [300, 16])
def test_result_is_the_same_for_any_number_of_threads(kernels, N):
    test_matmul.test_result_is_the_same_for_any_number_of_threads(kernels, "bfloat16", 150, N, True)


@pytest.mark.parametrize("transpose_w", [False, True])
def test_row_does_not_depend_on_the_others(kernels, transpose_w):
    test_matmul.test_row_does_not_depend_on_the_others(kernels, "bfloat16", 50, 300, transpose_w)


@pytest.mark.parametrize("sizes", test_grouped_matmul.GROUPS.values(), ids=test_grouped_matmul.GROUPS.keys())
@pytest.mark.parametrize("K, N", [(131, 16), (16, 131), (64, 200)])
def test_groups(kernels, sizes, K, N):
    test_grouped_matmul.check(kernels, "bfloat16", sizes, K, N, rows_after=2)


@pytest.mark.parametrize("M", [1, 2, 17, 40])
@pytest.mark.parametrize("N, K", [(37, 75), (130, 129), (300, 64)])
def test_epilogues(kernels, M, N, K):
    test_linear.check_linear(kernels, "bfloat16", M, N, K, with_bias=True, residual="y")
    test_linear.check_swiglu(kernels, "bfloat16", M, N, K, with_bias=True)
