import pytest

from mindgen.kernels import plugin
from mindgen.kernels.library import KernelLibrary


@pytest.fixture(scope="session")
def library(request):
    path = request.config.getoption("--kernels-library")
    return KernelLibrary(path) if path else plugin.load()
