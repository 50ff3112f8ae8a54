"""A job that is there already: what is refused, what goes on, and what is begun again."""

from pathlib import Path

import pytest
from fake_model import ADAPTERS, FakeModel
from test_run import job

from mindgen.batch.run import run_batch
from mindgen.errors import BatchError


def test_a_finished_job_whose_adapter_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_batch(job(tmp_path), opener=FakeModel())
    monkeypatch.setitem(ADAPTERS, "A2", "3" * 64)
    with pytest.raises(BatchError, match="another adapter A2: its digest was 2{64}, now 3{64}"):
        run_batch(job(tmp_path), opener=FakeModel())
