"""pandas and datasets: what they wrote goes through a job, and is read by them."""

import datasets
import pandas
from copies import ADDED, copy


def test_both_read_what_is_written(tmp_path):
    """With the metadata that they wrote themselves."""
    frame = pandas.DataFrame({"prompt": ["a", "b"], "level": pandas.Categorical(["low", "high"])}, index=["x", "y"])
    frame.to_parquet(tmp_path / "frame.parquet")
    read = pandas.read_parquet(copy(tmp_path / "frame.parquet", tmp_path / "frames.parquet", samples=2))
    assert list(read.index) == ["x", "x", "y", "y"]
    assert read["level"].dtype == frame["level"].dtype
    assert list(read.columns) == ["prompt", "level", *ADDED.names]
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    labelled = datasets.Dataset.from_dict({"prompt": ["a", "b"], "label": [1, 0]}, features=features)
    labelled.to_parquet(tmp_path / "labelled.parquet")
    path = copy(tmp_path / "labelled.parquet", tmp_path / "out.parquet", samples=2)
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert loaded.features["label"] == features["label"]
    assert loaded["label"][:] == [1, 1, 0, 0]
    assert loaded["error"][:] == [None, None, "failed", "failed"]
