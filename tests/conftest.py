import os

# Before anything imports torch or mindspore: mindgen must be first, and two test processes share two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import settings

import mindgen  # noqa: F401

# The same examples at every run, so that none refuses a change that has nothing to do with it; others are tried with
# `python -m pytest --hypothesis-profile=default`.
settings.register_profile("same_examples", derandomize=True)
settings.load_profile("same_examples")


def pytest_addoption(parser):
    parser.addoption("--kernels-library", help="a libmindgen_cpu.so for tests/kernels and tests/executor/test_graph.py")
    parser.addoption(
        "--pictures", help="a folder, like docs/images, for which tests/server/test_playground.py makes pictures"
    )


@pytest.fixture(params=["mindgen", pytest.param("mindspore", marks=pytest.mark.slow)], scope="module")
def executor(request):
    """What runs the networks: whatever holds on one of these holds on the other."""
    return request.param


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Folders that are made of files are made below the test's own folder."""
    monkeypatch.setattr("mindgen.store.made_folder.cache_folder", lambda: tmp_path / "cache")
