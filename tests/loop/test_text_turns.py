"""Many readers share what texts may cost, and lose nothing by it."""

import asyncio

from loops import stopped

from mindgen import LLM, SamplingParams
from mindgen.loop.text_turns import _FEW

PROMPT = "An increasing sequence: one,"
PARAMS = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)


async def read(llm: LLM) -> list:
    return [chunk async for chunk in llm.stream(PROMPT, PARAMS)]


def read_by(llm: LLM, count: int) -> list[list]:
    async def all_of_them():
        return await asyncio.gather(*(read(llm) for _ in range(count)))

    return asyncio.run(all_of_them())


def test_tokens_come_together_and_all_of_them():
    llm = LLM("demo")
    (expected,) = llm.generate(PROMPT, PARAMS)
    for count in (1, 4 * _FEW):
        for chunks in read_by(llm, count):
            *parts, last = chunks
            assert last.output.outputs[0].token_ids == expected.outputs[0].token_ids
            assert "".join(part.text for part in parts) == expected.outputs[0].text
            assert [token for part in parts for token in part.token_ids] == expected.outputs[0].token_ids
            assert len(parts[0].token_ids) == 1
    llm.close()


def test_a_pause_leaves_nothing_behind():
    """What was generated before it is read during it."""
    llm = LLM("demo")
    streams = [llm.stream(PROMPT, PARAMS) for _ in range(4 * _FEW)]
    for stream in streams:
        stream._send()
    taken = streams[0].advance()
    with stopped(llm) as texts:
        llm._model.loop.call(lambda engine: None)
        generated = [len(each.request.sequences[0].output_token_ids) for each in texts._open.values()]
        steps = [[taken, *streams[0]._subscription._steps], *(each._subscription._steps for each in streams[1:])]
        read = [sum(len(chunk.token_ids) for step in own for chunk in step) for own in steps]
        assert sorted(read) == sorted(generated) and len(read) == 4 * _FEW
    for stream in streams:
        stream.close()
    llm.close()
