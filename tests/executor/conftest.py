import pytest

from mindgen.kernels import plugin


@pytest.fixture(scope="session")
def library():
    return plugin.load()
