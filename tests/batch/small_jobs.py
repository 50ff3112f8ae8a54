"""Jobs over a few rows for a model without a network, and one that ends in their midst."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fake_model import FakeModel

from mindgen.batch import BatchConfig
from mindgen.sampling_params import SamplingParams

SAMPLED = SamplingParams(temperature=1.0, max_tokens=4)


def write_input(path: Path, num_rows: int = 25) -> Path:
    pq.write_table(
        pa.table({
            "prompt": [f"prompt {row}" for row in range(num_rows)],
            "adapter_id": [("A1", None, "A2")[row % 3] for row in range(num_rows)],
            "id": pa.array(range(num_rows), pa.int16()),
        }),
        path,
    )  # fmt: skip
    return path


def job(tmp_path: Path, **options: object) -> BatchConfig:
    path = tmp_path / "in.parquet"
    if not path.exists():
        write_input(path)
    fields = {"input": str(path), "output": str(tmp_path / "out.parquet"), "sampling": SAMPLED, "part_rows": 10}
    return BatchConfig(**fields | options)  # type: ignore[arg-type]


class StoppingModel(FakeModel):
    """Ends the run with an error after so many answers have been asked for."""

    def __init__(self, after: int) -> None:
        super().__init__(num_slots=2)
        self._after = after

    def encode(self, text: str) -> list[int]:
        self._after -= 1
        if self._after < 0:
            raise KeyboardInterrupt
        return super().encode(text)
