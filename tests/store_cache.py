"""Has folders that are made of files made below the test's own folder."""

import pytest

from mindgen.store import made_folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(made_folder, "cache_folder", lambda: tmp_path / "cache")
