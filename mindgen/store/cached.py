"""The models that were fetched, and what they take."""

from dataclasses import dataclass
from pathlib import Path

from mindgen.store.packaged import PACKAGED, packaged_file


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model on this machine.

    Attributes:
        num_bytes: that it takes on disk; 0 for one that is not fetched.
    """

    name: str
    origin: str
    num_bytes: int
    path: Path


def cached_models() -> list[CachedModel]:
    """Those of packages, fetched or not, and those in the hub's cache."""
    found = []
    for name, model in PACKAGED.items():
        path = packaged_file(name)
        size = path.stat().st_size if path.is_file() else 0
        found.append(CachedModel(name, f"{model.package} ({model.description})", size, path))
    return found + _of_hub()


def _of_hub() -> list[CachedModel]:
    try:
        from huggingface_hub import errors, scan_cache_dir
    except ImportError:
        return []
    try:
        repositories = scan_cache_dir().repos
    except errors.CacheNotFound:
        return []
    models = [each for each in repositories if each.repo_type == "model"]
    return [
        CachedModel(each.repo_id, "hub", each.size_on_disk, Path(each.repo_path))
        for each in sorted(models, key=lambda each: each.repo_id)
    ]
