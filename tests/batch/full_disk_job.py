"""A job on a disk that gets full, and is larger when the job goes on: python full_disk_job.py FOLDER, in a namespace
of mounts of its own."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fake_model import FakeModel

from mindgen.batch import BatchConfig
from mindgen.batch.run import run_batch


def main(folder: Path) -> None:
    table = pa.table({"prompt": [f"prompt {row}" for row in range(5000)]})
    pq.write_table(table, folder / "in.parquet")
    expected = BatchConfig(input=str(folder / "in.parquet"), output=str(folder / "expected.parquet"), part_rows=100)
    run_batch(expected, opener=FakeModel())
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=True)
    config = BatchConfig(input=str(folder / "in.parquet"), output=str(disk / "out.parquet"), part_rows=100)
    model = FakeModel()
    try:
        run_batch(config, opener=model)
    except OSError as error:
        print(error)
    subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
    again = FakeModel()
    run_batch(config, opener=again)
    print(0 < again.num_answered < 5000, (disk / "out.parquet").read_bytes() == Path(expected.output).read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
