import pytest
from buffers import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
def test_product_rate(kernels, dtype):
    assert 1e8 < kernels.measure_product_rate(DTYPES[dtype]) < 1e16


def test_read_bandwidth(kernels):
    assert 1e8 < kernels.measure_read_bandwidth() < 1e13
