"""Clusters of Ray whose nodes are processes of this machine."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def ray_cluster(num_nodes: int, cpus_of_each: int) -> Iterator[Any]:
    """A cluster that RAY_ADDRESS names meanwhile; the test is skipped without Ray."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    folder = tempfile.mkdtemp(prefix="ray")  # a short name, as sockets need
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": cpus_of_each, "include_dashboard": False, "temp_dir": folder}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(num_nodes - 1):
                made.add_node(num_cpus=cpus_of_each)
            patch.setenv("RAY_ADDRESS", made.address)
            yield made
        finally:
            made.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
