"""`runner: ray` on a real cluster of three nodes: the bytes of a local run, whatever ends in the meantime."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import Fault, children, is_alive, kill, num_lines, parent, process_that_has_open
from ray_clusters import ray_cluster

from mindgen.batch import BatchConfig
from mindgen.batch.config import ModelChoice, OutputOptions
from mindgen.batch.run import Silent, run_batch
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import BatchError, ConfigError
from mindgen.loop.model_files import DEFAULT_MODEL, ModelFiles
from mindgen.sampling_params import SamplingParams

NUM_ROWS, PART_ROWS = 40, 8
SAMPLED = SamplingParams(temperature=1.0, max_tokens=320, ignore_eos=True)  # a part takes seconds
ENGINE = EngineConfig(max_num_seqs=4, num_blocks=200, num_threads=1)

OVERWRITE = OutputOptions(overwrite=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(num_nodes=3, cpus_of_each=2) as made:
        yield made


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of all adapters, some of which cannot be served."""
    prompts: list[str | None] = [f"An increasing sequence: {row}," for row in range(NUM_ROWS)]
    prompts[13] = None
    adapters = [("A1", None, "A2", "A3")[row % 4] for row in range(NUM_ROWS)]
    adapters[27] = "nobody"
    path = tmp_path_factory.mktemp("given") / "in.parquet"
    pq.write_table(pa.table({"prompt": prompts, "adapter_id": adapters}), path)
    return path


def job(given: Path, folder: Path, num_replicas: int = 3, **options: Any) -> BatchConfig:
    fields: dict[str, Any] = {
        "input": str(given), "output": str(folder / "out.parquet"), "sampling": SAMPLED, "n_samples": 2,
        "part_rows": PART_ROWS, "engine": replace(ENGINE, data_parallel_size=num_replicas), "runner": "ray",
    }  # fmt: skip
    return BatchConfig(**fields | options)


@pytest.fixture(scope="module")
def expected(given: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a local run writes."""
    config = job(given, tmp_path_factory.mktemp("local"), 1, runner="local")
    run_batch(config)
    return Path(config.output).read_bytes()


def folder_of(config: BatchConfig) -> Path:
    return Path(f"{config.output}.job")


@pytest.mark.slow
def test_replicas_on_three_nodes_write_what_a_local_run_does(
    cluster: Any, given: Path, expected: bytes, tmp_path: Path
) -> None:
    config = job(given, tmp_path)

    def all_nodes() -> set[int]:
        """The raylets whose workers write journals, one a node."""
        nodes: set[int] = set()
        while len(nodes) < 3 and not Path(config.output).exists():
            writers = map(process_that_has_open, folder_of(config).glob("parts/*.journal"))
            nodes |= {parent(pid) for pid in writers if pid is not None and is_alive(pid)}
        return nodes

    with ThreadPoolExecutor(1) as watch:
        seen = watch.submit(all_nodes)
        summary = run_batch(config)
    assert Path(config.output).read_bytes() == expected
    assert len(seen.result()) == 3
    assert (summary.run.rows, summary.run.rows_failed, summary.run.samples) == (NUM_ROWS, 2, 2 * NUM_ROWS)
    assert summary.run.errors == {"prompt": 2, "adapter": 2}


@pytest.mark.slow
def test_a_replica_that_is_killed_is_replaced_and_its_answers_stay(
    cluster: Any, given: Path, expected: bytes, tmp_path: Path
) -> None:
    config, listener = job(given, tmp_path), Listener()

    def keep_and_kill(journal: Path, pid: int) -> tuple[int, bytes]:
        """Its process, and the journal then."""
        kept.hardlink_to(journal)
        return pid, kill(journal, pid)

    kept = tmp_path / "kept.journal"
    with Fault(folder_of(config), 3, keep_and_kill) as fault:
        run_batch(config, listener)
    assert Path(config.output).read_bytes() == expected
    pid, before = fault.done  # type: ignore[misc]
    assert not is_alive(pid)
    answered = before[: before.rindex(b"\n") + 1]
    assert answered.count(b"\n") >= 4 and kept.read_bytes().startswith(answered)
    assert num_lines(kept) == 1 + PART_ROWS  # only what was in flight is answered again
    assert any("a replica is lost" in line for line in listener.lines)


@pytest.mark.slow
def test_a_node_that_is_removed_is_done_without(cluster: Any, given: Path, expected: bytes, tmp_path: Path) -> None:
    config, listener = job(given, tmp_path), Listener()
    node = next(iter(cluster.worker_nodes))

    def remove(journal: Path, pid: int) -> bool:
        cluster.remove_node(node)
        return True

    with Fault(folder_of(config), 3, remove) as fault:
        run_batch(config, listener)
    cluster.add_node(num_cpus=2)
    assert fault.done and any("a replica is lost" in line for line in listener.lines)
    assert Path(config.output).read_bytes() == expected


@pytest.mark.slow
def test_a_replica_of_two_ranks_is_replaced_when_one_of_them_is_killed(
    cluster: Any, given: Path, tmp_path: Path
) -> None:
    engine = replace(ENGINE, tensor_parallel_size=2, num_threads=2)
    local = job(given, tmp_path / "local", engine=engine, runner="local")
    run_batch(local)
    config, listener = job(given, tmp_path / "ray", engine=replace(engine, data_parallel_size=2)), Listener()

    def kill_rank(journal: Path, pid: int) -> list[int]:
        own = [each for each in children(pid) if b"rank_process" in Path(f"/proc/{each}/cmdline").read_bytes()]
        kill(journal, own[0])
        return [pid, *own]

    with Fault(folder_of(config), 3, kill_rank) as fault:
        run_batch(config, listener)
    assert Path(config.output).read_bytes() == Path(local.output).read_bytes()
    assert len(fault.done) == 2 and not any(map(is_alive, fault.done))  # type: ignore[arg-type]
    assert any("a replica is lost" in line for line in listener.lines)


@pytest.mark.slow
def test_rows_of_very_different_length_and_a_replica_that_is_killed(cluster: Any, tmp_path: Path) -> None:
    config = job(write_uneven(tmp_path, UNEVEN), tmp_path, part_rows=1, n_samples=1)
    with Fault(folder_of(config), -1, kill) as fault:
        summary = run_batch(config)
    assert fault.done is not None
    assert pq.read_table(config.output)["completion_tokens"].to_pylist() == UNEVEN
    assert summary.in_all.rows == len(UNEVEN)


UNEVEN = [1, 400, 3, 200, 1, 100, 2]


def write_uneven(folder: Path, lengths: list[int]) -> Path:
    sampling = [{"max_tokens": length} for length in lengths]
    pq.write_table(pa.table({"prompt": ["one, two,"] * len(lengths), "sampling": sampling}), folder / "uneven.parquet")
    return folder / "uneven.parquet"


@pytest.mark.slow
def test_local_replicas_go_on_when_one_of_them_is_killed(tmp_path: Path) -> None:
    lengths = UNEVEN + [400] * 24
    config = job(write_uneven(tmp_path, lengths), tmp_path, part_rows=len(lengths), n_samples=1, runner="local")
    listener = Listener()

    def kill_replica(journal: Path, pid: int) -> bytes:
        replicas = [
            each for each in children(pid) if b"mindgen.loop.replica" in Path(f"/proc/{each}/cmdline").read_bytes()
        ]
        assert len(replicas) == 2
        return kill(journal, replicas[0])

    with Fault(folder_of(config), 2, kill_replica) as fault:
        run_batch(config, listener)
    assert fault.done is not None
    assert any("the model is loaded again" in line for line in listener.lines)
    assert pq.read_table(config.output)["completion_tokens"].to_pylist() == lengths


@pytest.mark.slow
def test_a_run_that_is_killed_takes_its_replicas_along_and_the_next_one_goes_on(
    cluster: Any, given: Path, expected: bytes, tmp_path: Path
) -> None:
    config = job(given, tmp_path)
    program = "import pickle, sys; from mindgen.batch.run import run_batch; run_batch(pickle.load(sys.stdin.buffer))"
    driver = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    driver.stdin.write(pickle.dumps(config))  # type: ignore[union-attr]
    driver.stdin.close()  # type: ignore[union-attr]

    def kill_driver(journal: Path, pid: int) -> int:
        driver.send_signal(signal.SIGKILL)
        return pid

    with Fault(folder_of(config), 3, kill_driver) as fault:
        assert driver.wait(120) == -signal.SIGKILL
    summary = run_batch(config)
    assert not is_alive(fault.done)  # type: ignore[arg-type]
    assert Path(config.output).read_bytes() == expected
    assert summary.in_all.rows == NUM_ROWS


@pytest.mark.slow
def test_fail_fast_ends_the_job_and_a_local_run_can_end_it(
    cluster: Any, given: Path, expected: bytes, tmp_path: Path
) -> None:
    config = job(given, tmp_path, 1)
    with pytest.raises(BatchError, match="row (13|27) has failed, and fail_fast is set"):
        run_batch(replace(config, fail_fast=True))
    run_batch(replace(config, runner="local"))
    assert Path(config.output).read_bytes() == expected


@pytest.mark.slow
def test_another_model_on_a_machine_is_refused(cluster: Any, given: Path, tmp_path: Path) -> None:
    class Changing(Silent):
        def begin(self, snapshot: object) -> None:
            path = model / "config.json"
            path.write_text(path.read_text() + "\n")

    model = tmp_path / "model"
    shutil.copytree(ModelFiles.of(DEFAULT_MODEL, None, None).folder, model)
    config = job(given, tmp_path, 1, model=ModelChoice(path=str(model), on_missing_adapter="base"))
    with pytest.raises(BatchError, match=r"on \S+: the model's digest is another one than for the process that runs"):
        run_batch(config, Changing())


@pytest.mark.slow
def test_a_cluster_without_room_is_refused_in_a_line(
    cluster: Any, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    large = replace(ENGINE, num_threads=64)
    with pytest.raises(ConfigError, match=r"no machine .* is large enough for a replica, which needs {'CPU': 64}"):
        run_batch(job(given, tmp_path, engine=large))
    npu = replace(ENGINE, device_target="Ascend")
    with pytest.raises(
        ConfigError, match=r"needs {'CPU': 1, 'NPU': 1}: the most that one has is {'CPU': 2.0, 'NPU': 0}"
    ):
        run_batch(job(given, tmp_path, engine=npu, outputs=OVERWRITE))

    @ray.remote(num_cpus=2)
    class Other:
        def is_there(self) -> bool:
            return True

    ray.init(log_to_driver=False)
    try:
        others = [Other.remote() for _ in range(3)]
        assert ray.get([other.is_there.remote() for other in others]) == [True] * 3
        monkeypatch.setattr("mindgen.batch.ray_runner._PLACE_SECONDS", 1.0)
        with pytest.raises(ConfigError, match="no machine of the Ray cluster has had room for a replica for 1 s"):
            run_batch(job(given, tmp_path, outputs=OVERWRITE))
    finally:
        ray.shutdown()


def test_without_ray_or_its_cluster_there_is_one_line(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(ConfigError, match=r"runner ray needs Ray: pip install 'mindgen\[ray\]'"):
            run_batch(job(given, tmp_path))
    code = "import sys, mindgen.batch.run; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
