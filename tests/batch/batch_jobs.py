"""Jobs from words, and what they should be."""

from dataclasses import replace

import pytest

from mindgen.batch.config import BatchConfig, ModelChoice
from mindgen.batch.settings import read_batch_settings
from mindgen.errors import UsageError
from mindgen.loop.model_files import ModelFiles
from mindgen.sampling_params import SamplingParams

FILES = ("data.path=in.parquet", "data.output_path=out.parquet")


def job(*words: str, path=None, flags=None) -> BatchConfig:
    settings, _ = read_batch_settings(path, words, flags or {})
    files = ModelFiles(settings.model.path, settings.adapter_paths, settings.load_checkpoint)
    return settings.job(files, settings.engine)


def notes(*words: str) -> list[str]:
    return read_batch_settings(None, words, {}).notes


def refusal(*words: str) -> str:
    with pytest.raises(UsageError) as raised:
        job(*words)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def expected(**changes) -> BatchConfig:
    """A job of the document's command line, but for these changes."""
    sampling = SamplingParams(temperature=1.0, top_k=50, top_p=0.7, max_tokens=512)
    sampling = replace(sampling, **changes.pop("sampling", {}))
    model = ModelChoice(path=changes.pop("model", "demo"), dtype="bfloat16")
    job = {"input": "in.parquet", "output": "out.parquet", "n_samples": 5, "model": model, "sampling": sampling}
    return BatchConfig(**job | changes)
