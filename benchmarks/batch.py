"""A batch job against the bare engine on the same requests, in turns; and what a row costs without a model.

    python benchmarks/batch.py [--json PATH] [--turns 3] [--model smollm2] [--rows 256] [--tokens 48] [--many 1000000]

The model is loaded once, for both. The requests are those of the job, made before the time of the bare engine counts,
which gets all of them in one call. The job reads Parquet, keeps journals and parts, and writes Parquet.
"""

import argparse
import hashlib
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mindgen import LLM, SamplingParams
from mindgen.batch import BatchConfig, ModelChoice, run_batch
from mindgen.batch.model import ConfiguredModel, LoadedModel
from mindgen.batch.row_request import RowReader, used_columns
from mindgen.batch.source import open_source
from mindgen.engine.engine_config import EngineConfig
from mindgen.loop.engine_loop import IndexedRequest
from mindgen.loop.subscription import Subscription
from mindgen.outputs import CompletionOutput, RequestOutput, TextChunk

WORDS = ("water", "a king", "the sea", "music", "a small town", "winter", "an engine", "bread")


class KeptModel(LoadedModel):
    """A model that stays open from one job to the next; it opens as itself."""

    def open(self) -> LoadedModel:
        return self

    def close(self) -> None: ...


class InstantServer:
    """Answers at once: what is left is what a job costs besides the model."""

    def submit(self, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool) -> None:
        subscription.put([TextChunk(index, "", _answer(request.token_ids)) for index, request in requests])

    def abort(self, subscription: Subscription) -> None: ...


class InstantModel:
    """As a BatchModel and its opener, without a network."""

    server, digest, dtype, num_slots, max_model_len = InstantServer(), "0" * 64, "float32", 512, 100

    def open(self) -> "InstantModel":
        return self

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def chat_prompt(self, messages: Sequence[Any], **variables: Any) -> dict[str, Any]:
        raise NotImplementedError

    def adapter_digest(self, adapter_id: str) -> str:
        return hashlib.sha256(adapter_id.encode()).hexdigest()

    def metrics(self) -> None: ...

    def close(self) -> None: ...


def _answer(token_ids: list[int] | None) -> RequestOutput:
    completions = [CompletionOutput(0, "an answer of some words", [1, 2, 3, 4, 5], finish_reason="stop")]
    return RequestOutput(0, None, token_ids or [], completions, True, None)


class Peak:
    """A Watcher that notes how much memory the process had when the job began, and at most."""

    def begin(self, snapshot: object) -> None:
        self.before = _resident()
        self.most = self.before

    def update(self, snapshot: object) -> None:
        self.most = max(self.most, _resident())

    def say(self, line: str) -> None: ...

    def end(self, summary: object) -> None:
        self.update(summary)


def _resident() -> float:
    """MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _against_engine(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    prompts = [
        f"A story about {WORDS[row % 8]} and {WORDS[row // 8 % 8]}, number {row}:" for row in range(arguments.rows)
    ]
    pq.write_table(pa.table({"prompt": prompts}), folder / "in.parquet")
    config = BatchConfig(
        input=str(folder / "in.parquet"),
        output="",
        model=ModelChoice(path=arguments.model),
        sampling=SamplingParams(temperature=1.0, max_tokens=arguments.tokens, ignore_eos=True),
        engine=EngineConfig(max_num_seqs=32, enable_prefix_caching=False),
    )
    llm = LLM(arguments.model, config=config.engine)
    known = ConfiguredModel(config)
    model = KeptModel(llm, known.digest, known._adapters, config.engine.max_num_seqs)
    source = open_source(config.input)
    reader = RowReader(config, used_columns(config.columns, source, None), model)
    requests = [
        each.request for rows in source.blocks(config.part_rows) for each in reader.read(rows, range(rows.num_rows))
        if not isinstance(each, list)
    ]  # fmt: skip
    bare, job = [], []
    for turn in range(arguments.turns + 1):
        start = time.perf_counter()
        list(llm.stream_requests(requests, is_streamed=False))
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        run_batch(replace(config, output=str(folder / f"{turn}.parquet")), opener=model)
        job.append(time.perf_counter() - start)
    llm.close()
    tokens = arguments.rows * arguments.tokens
    ratios = [one / other for one, other in zip(bare[1:], job[1:], strict=True)]  # the first turn warms up
    return {
        "engine_tokens_per_second": tokens / statistics.median(bare[1:]),
        "job_tokens_per_second": tokens / statistics.median(job[1:]),
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
    }


def _of_many_rows(num_rows: int, folder: Path) -> dict[str, float]:
    path = folder / "many.parquet"
    pq.write_table(pa.table({"prompt": [f"prompt {row}" for row in range(num_rows)]}), path)
    config = BatchConfig(input=str(path), output=str(folder / "answers.parquet"), part_rows=10_000)
    peak, start, processor = Peak(), time.perf_counter(), time.process_time()
    run_batch(config, peak, InstantModel())
    return {
        "rows": num_rows,
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "memory_growth_mb": peak.most - peak.before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/batch.json"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--many", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = {"job": _against_engine(arguments, Path(folder)), "many": _of_many_rows(arguments.many, Path(folder))}
    job, many = report["job"], report["many"]
    print(
        f"job {job['job_tokens_per_second']:.0f} tokens/s, bare engine {job['engine_tokens_per_second']:.0f}: ratio "
        f"{job['ratio']:.3f} ({job['lowest_ratio']:.3f} to {job['highest_ratio']:.3f})"
    )
    print(
        f"{many['rows']:.0f} rows without a model: {many['seconds']:.1f} s ({many['processor_seconds']:.1f} s of "
        f"processors), memory grows by {many['memory_growth_mb']:.0f} MB"
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
