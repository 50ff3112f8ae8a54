import pytest
import stand_in
import torch
from tiny_models import KINDS, make_model


@pytest.fixture(scope="session", autouse=True)
def stand_in_for_cann():
    """Built before the first test, which would otherwise seem to be slow."""
    try:
        return stand_in.build()
    except stand_in.StandInUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The folder of a small model of each kind."""
    base = tmp_path_factory.mktemp("models")
    return {kind: make_model(kind, base / kind, torch.bfloat16) for kind in KINDS}
