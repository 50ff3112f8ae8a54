import mindspore
import pytest
from op_calls import MODES

from mindgen.kernels import plugin

FIRST_MODE, *OTHER_MODES = MODES


@pytest.fixture(scope="session")
def library():
    return plugin.load()


@pytest.fixture(autouse=True)
def restored_mode():
    before = mindspore.get_context("mode")
    yield
    mindspore.set_context(mode=before)


@pytest.fixture(params=[FIRST_MODE, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHER_MODES)])
def mode(request):
    return request.param


@pytest.fixture(params=["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def half_dtype(request):
    """The dtypes of Ascend's attention ops."""
    return request.param


@pytest.fixture(params=["bfloat16", "float16", "float32"])
def dtype(request):
    return request.param
