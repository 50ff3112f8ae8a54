"""A thousand streams that are read at once, against as many requests that nobody reads before their end.

    python benchmarks/streams.py [--json PATH] [--turns 5] [--streams 1000] [--tokens 256]

The demo's engine computes 32 requests in each step, in both cases and in turns. Streams are coroutines of one event
loop, which shares the process, and Python's lock, with the engine's thread. As in `mindgen serve`, the garbage
collector passes over what is there once the model is loaded.
"""

import argparse
import asyncio
import json
import statistics
import threading
import time
from pathlib import Path

from mindgen import LLM, SamplingParams
from mindgen.engine.engine_config import EngineConfig
from mindgen.system.memory import keep_heap

PROMPT = "An increasing sequence: one, two, three,"
IN_A_STEP = 32


async def _read(llm: LLM, params: SamplingParams) -> int:
    tokens = 0
    async for chunk in llm.stream(PROMPT, params):
        tokens += len(chunk.token_ids)
    return tokens


async def _read_all(llm: LLM, count: int, params: SamplingParams) -> tuple[float, int, int]:
    """Seconds, tokens, and the most threads that there were."""
    most, start = 0, time.perf_counter()
    tasks = [asyncio.create_task(_read(llm, params)) for _ in range(count)]
    ended = asyncio.gather(*tasks)
    while not ended.done():
        most = max(most, threading.active_count())
        await asyncio.sleep(0.05)
    return time.perf_counter() - start, sum(task.result() for task in tasks), most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/streams.json"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=256)
    arguments = parser.parse_args()
    llm = LLM("demo", config=EngineConfig(max_num_seqs=IN_A_STEP, num_threads=2))
    params = SamplingParams(temperature=0, max_tokens=arguments.tokens, ignore_eos=True)
    llm.generate([PROMPT] * IN_A_STEP, params)
    keep_heap()
    before = threading.active_count()
    blocking, streaming, threads = [], [], []
    for _ in range(arguments.turns):
        start = time.perf_counter()
        outputs = llm.generate([PROMPT] * arguments.streams, params)
        blocking.append(sum(len(each.outputs[0].token_ids) for each in outputs) / (time.perf_counter() - start))
        seconds, tokens, most = asyncio.run(_read_all(llm, arguments.streams, params))
        streaming.append(tokens / seconds)
        threads.append(most)
    ratios = [one / other for one, other in zip(streaming, blocking, strict=True)]
    report = {
        "streams": arguments.streams,
        "threads_before": before,
        "most_threads": max(threads),
        "blocking_tokens_per_second": statistics.median(blocking),
        "streamed_tokens_per_second": statistics.median(streaming),
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
    }
    print(
        f"{report['streams']} streams: {report['streamed_tokens_per_second']:.0f} tokens/s, blocking requests "
        f"{report['blocking_tokens_per_second']:.0f}; ratio {report['ratio']:.2f} ({report['lowest_ratio']:.2f} to "
        f"{report['highest_ratio']:.2f}); threads {report['threads_before']} before, {report['most_threads']} at most"
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
