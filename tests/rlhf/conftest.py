import pytest
from updates import make_models


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two checkpoints of one shape."""
    return make_models(tmp_path_factory.mktemp("models"))
