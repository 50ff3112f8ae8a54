"""Copies of inputs with columns added, as a job writes them."""

import pyarrow as pa

from mindgen.batch.sink import open_sink
from mindgen.batch.source import open_source

ADDED = pa.schema([("generated_text", pa.string()), ("logprobs", pa.list_(pa.float32())), ("error", pa.string())])


def copy(source_path, path, samples=1, rows_per_block=2):
    """Writes all of the source, with `samples` rows for each."""
    source = open_source(str(source_path))
    with open_sink(path, source, ADDED, "generated_text") as sink:
        for rows in source.blocks(rows_per_block):
            numbers = [(rows.first_row + row, sample) for row in range(rows.num_rows) for sample in range(samples)]
            texts = [None if row == 1 else f"row {row}\\\nsample {sample}" for row, sample in numbers]
            errors = ["failed" if text is None else None for text in texts]
            logprobs = [None if text is None else [-0.5, 0.0] for text in texts]
            sink.write(rows, pa.table([texts, logprobs, errors], schema=ADDED))
    return path
