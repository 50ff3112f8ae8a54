"""The faces of LLM beside generate: limits by keyword, conversations, coroutines, and requests that fail alone."""

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from loops import engine_of

from mindgen import LLM, SamplingParams
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError, RequestError, UnknownAdapterError
from mindgen.store.embedded import demo_folder
from mindgen.text.chat_template import load_chat_templates

ANSWERS = json.loads((Path(__file__).parent / "data" / "demo_answers.json").read_text(encoding="utf-8"))
CHOSEN = [next(a for a in ANSWERS if a["adapter_id"] == name) for name in ("A1", None, "A3", "A2")]
GREEDY = SamplingParams(temperature=0, max_tokens=80)


@pytest.fixture(scope="module")
def llm():
    return LLM(model="demo", max_num_seqs=8, gpu_memory_utilization="64MiB", block_size=8)


def test_limits_by_keyword(llm):
    assert llm.memory_plan.block_size == 8
    assert llm.memory_plan.num_blocks == 8 * 512 // 8
    assert str(llm.memory_plan).startswith("memory: weights ") and "\n" not in str(llm.memory_plan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_num_seq": 8}, "unknown argument 'max_num_seq'; did you mean 'max_num_seqs'?"),
        ({"adapter": "A1"}, "unknown argument 'adapter'; did you mean 'adapters'?"),
        ({"gpu_memory_utilisation": 0.5}, "did you mean 'gpu_memory_utilization'?"),
        ({"gpu_memory_utilization": 0.5, "memory_utilization": 0.5}, "give one of them"),
        ({"config": EngineConfig(), "block_size": 8}, "do not pass block_size as well"),
        ({"max_num_seqs": "many"}, "engine: max_num_seqs must be a valid integer"),
        ({"executor": "cuda"}, "engine: executor must be 'mindgen', 'mindgen_unfused' or 'mindspore', not 'cuda'"),
        ({"block_size": 0}, "block_size must be at least 1, not 0"),
    ],
)
def test_wrong_limits_are_refused_before_the_model_is_read(arguments, message):
    with pytest.raises(ConfigError) as raised:
        LLM("demo", **arguments)
    assert message in str(raised.value)


def test_chat_and_stream_chat_continue_the_template(llm):
    messages = [{"role": "user", "content": CHOSEN[0]["prompt"]}]
    output = llm.chat(messages, GREEDY, "A1")[0]
    assert output.prompt == load_chat_templates(demo_folder()).render(messages)
    assert output.prompt_token_ids == llm.encode(CHOSEN[0]["prompt"])  # one beginning, not two
    assert output.outputs[0].text == CHOSEN[0]["answer"]
    chunks = list(llm.stream_chat(messages, GREEDY, "A1"))
    assert "".join(chunk.text for chunk in chunks) == CHOSEN[0]["answer"] and len(chunks) > 3
    both = llm.chat([messages, messages], GREEDY, ["A1", None])
    assert [each.adapter_id for each in both] == ["A1", None]
    stream = llm.stream_chat(messages, GREEDY)
    stream.advance()
    stream.close()
    assert not engine_of(llm).has_unfinished()


def test_chunks_carry_all_tokens(llm):
    params = [
        SamplingParams(temperature=1.5, n=2, seed=3, max_tokens=12),
        GREEDY,
        SamplingParams(best_of=3, max_tokens=5),
    ]
    tokens: dict[tuple[int, int], list[int]] = {}
    outputs = {}
    for chunk in llm.stream([CHOSEN[0]["prompt"]] * 3, params):
        tokens.setdefault((chunk.index, chunk.output_index), []).extend(chunk.token_ids)
        if chunk.output is not None:
            outputs[chunk.index] = chunk.output
    expected = {(i, each.index): each.token_ids for i, output in outputs.items() for each in output.outputs}
    assert tokens == expected and len(expected) == 4


def test_a_failing_request_fails_alone(llm):
    prompts = [CHOSEN[0]["prompt"], "", CHOSEN[2]["prompt"], "word " * 3000, CHOSEN[3]["prompt"]]
    adapters = ["A1", None, "A3", None, "A9"]
    params = [GREEDY] * 4 + [SamplingParams(temperature=0, guided_regex="(")]
    outputs = llm.generate(prompts, params, adapters)
    assert [output.error is None for output in outputs] == [True, False, True, False, False]
    assert [outputs[index].outputs[0].text for index in (0, 2)] == [CHOSEN[0]["answer"], CHOSEN[2]["answer"]]
    for index, message in ((1, "empty"), (3, "context of 512"), (4, "guided_regex")):
        assert outputs[index].outputs == [] and outputs[index].finished and message in outputs[index].error
        assert isinstance(outputs[index].exception, RequestError)
    with pytest.raises(UnknownAdapterError):
        llm.generate("I love", GREEDY, "A9")
    engine_of(llm).check_integrity()


async def _text(llm: LLM, prompt: str, adapter_id: str | None) -> str:
    stream = llm.stream(prompt, GREEDY, adapter_id)
    return "".join([chunk.text async for chunk in stream])


def test_coroutines_share_the_engine(llm):
    async def talk() -> list[str]:
        return await asyncio.gather(*(_text(llm, each["prompt"], each["adapter_id"]) for each in CHOSEN))

    assert asyncio.run(talk()) == [each["answer"] for each in CHOSEN]
    engine_of(llm).check_integrity()


def test_a_coroutine_that_stops_listening_frees_its_blocks(llm):
    endless = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    llm.reset_prefix_cache()

    async def listen_a_little() -> None:
        async with aclosing(llm.stream(CHOSEN[0]["prompt"], endless, "A1")) as stream:
            async for _ in stream:
                break

    async def cancelled() -> None:
        async for _ in llm.stream(CHOSEN[1]["prompt"], endless):
            pass

    async def talk() -> list[str]:
        task = asyncio.create_task(cancelled())
        answers, _ = await asyncio.gather(
            asyncio.gather(*(_text(llm, each["prompt"], each["adapter_id"]) for each in CHOSEN)), listen_a_little()
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return answers

    assert asyncio.run(talk()) == [each["answer"] for each in CHOSEN]
    assert not engine_of(llm).has_unfinished()
    engine_of(llm).check_integrity()


def test_a_coroutine_may_be_cancelled_at_any_moment(llm):
    async def listen() -> None:
        async with aclosing(llm.stream([CHOSEN[0]["prompt"]] * 9, GREEDY)) as stream:
            async for _ in stream:
                pass

    async def cancel_after(seconds: float) -> None:
        task = asyncio.create_task(listen())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for step in range(30):
        asyncio.run(cancel_after(step * 1e-4))
        assert not engine_of(llm).has_unfinished()
        engine_of(llm).check_integrity()


def test_a_fresh_process_may_step_in_other_threads_only():
    script = """
import asyncio
from mindgen import LLM, SamplingParams
async def answer(llm, adapter_id):
    params = SamplingParams(temperature=0, max_tokens=80)
    return "".join([c.text async for c in llm.stream("An increasing sequence: one,", params, adapter_id)])
async def talk(llm):
    return await asyncio.gather(answer(llm, None), answer(llm, "A1"))
print(*asyncio.run(talk(LLM("demo"))), sep="\\n")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=120)
    prompt = "An increasing sequence: one,"
    expected = {a["adapter_id"]: a["answer"] for a in ANSWERS if a["prompt"] == prompt}
    assert result.stdout.splitlines() == [expected[None], expected["A1"]], result.stderr
