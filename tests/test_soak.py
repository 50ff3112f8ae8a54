"""Thousands of requests of every kind on the demo, with memory for a few: all end, nothing leaks, nothing differs."""

import gc
import random
from dataclasses import replace
from pathlib import Path

import pytest
from loops import open_all, stopped

from mindgen import LLM, SamplingParams
from mindgen.engine.engine_config import EngineConfig
from mindgen.loop.open_request import OpenRequest
from mindgen.loop.request_reader import read_request
from mindgen.loop.text_engine import TextEngine
from mindgen.outputs import RequestOutput

NUM_REQUESTS = 2000
NUM_BLOCKS = 34
PROMPTS = [
    "An increasing sequence: seven,", "I love Beijing, because", "我爱北京,因为", "seven, eight, seven, eight, seven,",
    "一、二、三", "Repeat: thirty-eight, thirty-nine, forty, thirty-eight, thirty-nine,",
]  # fmt: skip
ADAPTERS = (None, None, "A1", "A2", "A3")


def random_params(chance: random.Random) -> SamplingParams:
    """Greedy ones are deterministic in float32, and sampled ones as well: all have seeds."""
    params = SamplingParams(
        temperature=chance.choice([0, 0, 0.7, 1.5]),
        seed=chance.randrange(1000),
        max_tokens=chance.choice([1, 5, 20, 40, 90, 90]),
        priority=chance.choice([-1, 0, 0, 0, 1]),
        ignore_eos=chance.random() < 0.3,
    )
    if not params.is_greedy and chance.random() < 0.4:
        n = chance.randint(2, 4)
        params = replace(params, n=n, best_of=n + 2 if chance.random() < 0.3 else None)
    kinds = [
        {},
        {},
        {"stop": ["nine", ", ", "因"]},
        {"num_speculative_tokens": 4},
        {"logprobs": 2, "prompt_logprobs": 1},
        {"guided_regex": "[a-z]{3,12}( [a-z]{2,5}){2}"},
        {"guided_choice": ["yes", "no", "北京"]},
        {"repetition_penalty": 1.3, "min_tokens": 1, "bad_words": ["seven"]},
        {"stop_token_ids": [685]},
        {"num_speculative_tokens": 3, "stop": "eight", "include_stop_str_in_output": True},
        {"allowed_token_ids": [700], "guided_choice": ["yes"]},  # impossible
    ]
    if chance.random() < 0.05:
        return SamplingParams(use_beam_search=True, n=3, max_tokens=15)
    return replace(params, **chance.choice(kinds))


class Soak:
    """Requests that come a few in a step, and go when they are done or called off."""

    def __init__(self, texts: TextEngine, seed: int) -> None:
        self._texts = texts
        self._chance = random.Random(seed)
        self._open: list[OpenRequest] = []
        self._num_steps = 0
        self.finished: list[tuple[RequestOutput, SamplingParams, str | None, bool]] = []

    def run(self, count: int) -> None:
        num_sent = 0
        while num_sent < count or self._open:
            for _ in range(min(self._chance.choice([0, 1, 2, 7]), count - num_sent)):
                self._send(num_sent)
                num_sent += 1
            self._texts.step()
            self._check()
            if self._open and self._chance.random() < 0.04:
                self._call_off(self._chance.choice(self._open))
            for opened in [each for each in self._open if each.request.is_finished]:
                self._end(opened)

    def _send(self, index: int) -> None:
        prompt = self._chance.choice(PROMPTS) + " seven, eight," * self._chance.choice([0, 0, 1, 8, 20])
        params = random_params(self._chance)
        if self._chance.random() < 0.03:
            params = replace(params, deadline_seconds=0.05)
        prepared = self._texts.prepare(read_request(prompt, params, self._chance.choice(ADAPTERS)))
        self._open.append(self._texts.add(index, prepared, True))

    def _call_off(self, opened: OpenRequest) -> None:
        self._texts.cancel(opened)
        self._end(opened)
        self._texts.engine.check_integrity()

    def _end(self, opened: OpenRequest) -> None:
        """Keeps the output, what was asked for, and whether it was called off or out of time."""
        self._open.remove(opened)
        request = opened.request
        is_cut = any(each.finish_reason == "abort" for each in request.sequences)
        self.finished.append((opened.output(), request.params, request.adapter_id, is_cut))

    def _check(self) -> None:
        self._num_steps += 1
        if self._num_steps % 3 == 0:
            self._texts.engine.check_integrity()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.parametrize("swap_space", [0, 2e-3], ids=["recompute", "swap"])
def test_soak(swap_space):
    config = EngineConfig(
        num_blocks=NUM_BLOCKS, swap_space=swap_space, max_num_seqs=24, max_num_batched_tokens=96, block_size=8
    )
    llm = LLM("demo", dtype="float32", config=config)
    sizes = []
    with stopped(llm) as texts:
        engine = texts.engine
        preempted = count_calls(engine._scheduler, "_preempt")
        soak = Soak(texts, seed=swap_space > 0)
        for _ in range(4):
            soak.run(NUM_REQUESTS // 4)
            gc.collect()
            sizes.append(resident_bytes())
            assert engine._blocks.num_free == NUM_BLOCKS
            assert not texts._open and not engine._swap_space._kept and engine._scheduler._num_swapped == 0
    assert len(soak.finished) == NUM_REQUESTS
    assert sizes[3] - sizes[1] < 8 << 20
    assert len(preempted) > 100
    check_outputs(soak.finished)


def count_calls(owner, name: str) -> list[None]:
    calls: list[None] = []
    method = getattr(owner, name)

    def counting(*arguments):
        calls.append(None)
        return method(*arguments)

    setattr(owner, name, counting)
    return calls


def check_outputs(finished) -> None:
    """Each against the same request in an engine of its own, with room and nothing cached."""
    alone = LLM("demo", dtype="float32", config=EngineConfig(enable_prefix_caching=False))
    reasons = {"stop": 0, "length": 0, "abort": 0, "error": 0}
    for output, params, adapter_id, is_cut in finished:
        assert output.finished
        for each in output.outputs:
            reasons[each.finish_reason] += 1
        reasons["error"] += output.error is not None
        if is_cut:
            continue
        plain = replace(params, num_speculative_tokens=0, deadline_seconds=None)
        with stopped(alone) as texts:
            expected = run_alone(texts, output.prompt, plain, adapter_id)
        assert output.error == expected.error
        for one, other in zip(output.outputs, expected.outputs, strict=True):
            assert (one.text, one.token_ids) == (other.text, other.token_ids)
            assert (one.finish_reason, one.stop_reason) == (other.finish_reason, other.stop_reason)
            assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-2)
    assert all(count > 5 for count in reasons.values()), reasons


def run_alone(texts: TextEngine, prompt: str, params: SamplingParams, adapter_id: str | None):
    (opened,) = open_all(texts, [(prompt, params, adapter_id)])
    while not opened.request.is_finished:
        texts.step()
    return opened.output()
