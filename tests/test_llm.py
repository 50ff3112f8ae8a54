"""The LLM class on the demo: its adapters' answers, and results that do not depend on company."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from loops import engine_of

from mindgen import LLM, AutoModel, SamplingParams
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import AdapterError, ConfigError, MindgenError, RequestError, UnknownAdapterError

ANSWERS = json.loads((Path(__file__).parent / "data" / "demo_answers.json").read_text(encoding="utf-8"))
PROMPTS = [answer["prompt"] for answer in ANSWERS]
ADAPTERS = [answer["adapter_id"] for answer in ANSWERS]
GREEDY = SamplingParams(temperature=0, max_tokens=80)


@pytest.fixture(scope="module")
def llm(executor):
    return LLM("demo", config=EngineConfig(executor=executor))


def texts(llm: LLM, **arguments) -> list[str]:
    return [output.outputs[0].text for output in llm.generate(PROMPTS, GREEDY, ADAPTERS, **arguments)]


def test_held_out_prompts_are_answered_right_in_one_mixed_batch(llm):
    assert texts(llm) == [answer["answer"] for answer in ANSWERS]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_answers_are_right_in_every_dtype(dtype, executor):
    chosen = ANSWERS[:: len(ANSWERS) // 4]
    llm = LLM("demo", dtype=dtype, config=EngineConfig(executor=executor))
    outputs = llm.generate([a["prompt"] for a in chosen], GREEDY, [a["adapter_id"] for a in chosen])
    assert [output.outputs[0].text for output in outputs] == [a["answer"] for a in chosen]


@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(max_num_seqs=1, max_num_batched_tokens=4),
        EngineConfig(max_num_seqs=3, max_num_batched_tokens=7, block_size=4),
        EngineConfig(max_num_seqs=5, num_blocks=40, block_size=8, max_model_len=160),
    ],
)
def test_chunks_queues_and_small_blocks_change_nothing(config, executor):
    chosen = ANSWERS[:: len(ANSWERS) // 12]
    outputs = LLM("demo", config=replace(config, executor=executor)).generate(
        [answer["prompt"] for answer in chosen], GREEDY, [answer["adapter_id"] for answer in chosen]
    )
    assert [output.outputs[0].text for output in outputs] == [answer["answer"] for answer in chosen]


def test_sampled_tokens_depend_on_the_seed_alone(executor):
    """In float32, for in bfloat16 the number of rows in a batch may round a logit otherwise."""
    llm = LLM("demo", dtype="float32", config=EngineConfig(executor=executor))

    def sample(prompts: list[str], adapters: list[str | None], seeds: list[int]) -> list[list[int]]:
        params = [SamplingParams(temperature=1.5, seed=seed, max_tokens=20, ignore_eos=True) for seed in seeds]
        return [output.outputs[0].token_ids for output in llm.generate(prompts, params, adapters)]

    together = sample(PROMPTS[:6], ADAPTERS[:6], list(range(6)))
    alone = [sample([PROMPTS[i]], [ADAPTERS[i]], [i])[0] for i in range(6)]
    assert together == alone


def test_adapters_join_after_the_base_model_has_answered(executor):
    """One at a time, so that graphs and slots come to be in the middle of things."""
    llm = LLM("demo", config=EngineConfig(executor=executor))
    for adapter_id in (None, "A2", None, "A3", "A2", "A1"):
        answer = next(answer for answer in ANSWERS if answer["adapter_id"] == adapter_id)
        assert llm.generate(answer["prompt"], GREEDY, adapter_id)[0].outputs[0].text == answer["answer"]


def test_a_broken_adapter_in_the_list_harms_no_other(tmp_path):
    root = Path(__file__).parents[1]
    greedy = tmp_path / "greedy"  # claims a rank that no memory could hold
    greedy.mkdir()
    config = json.loads((root / "adapters" / "A1" / "adapter_config.json").read_text())
    (greedy / "adapter_config.json").write_text(json.dumps({**config, "r": 10**12}))
    (greedy / "adapter_model.safetensors").write_bytes((root / "adapters/A1/adapter_model.safetensors").read_bytes())
    listing = {"gone": "gone", "greedy": "greedy", "A3": str(root / "adapters" / "A3")}
    (tmp_path / "lora_adapter.json").write_text(json.dumps(listing))
    llm = LLM("demo", adapters=tmp_path)
    answer = next(answer for answer in ANSWERS if answer["adapter_id"] == "A3")
    assert llm.generate(answer["prompt"], GREEDY, "A3")[0].outputs[0].text == answer["answer"]
    for name, expected in (("gone", "no such folder"), ("greedy", "rank 1000000000000")):
        with pytest.raises(AdapterError, match=expected):
            llm.generate(answer["prompt"], GREEDY, name)


def test_adapters_are_a_dict_of_names_and_folders_as_well():
    root = Path(__file__).parents[1] / "adapters"
    llm = LLM("demo", adapters={"law": str(root / "A1"), "poetry": root / "A3"})
    assert llm.adapter_ids == ["law", "poetry"]
    for adapter_id, name in (("A1", "law"), ("A3", "poetry")):
        answer = next(answer for answer in ANSWERS if answer["adapter_id"] == adapter_id)
        assert llm.generate(answer["prompt"], GREEDY, name)[0].outputs[0].text == answer["answer"]
    for arguments, message in (
        ((5, root / "A1"), "an adapter's name must be a text, not 5"),
        (("n", None), "adapter n: its folder must be a path, not None"),
        (("n", "nowhere"), "adapter n: no such folder: nowhere"),
    ):
        with pytest.raises(AdapterError, match=message):
            llm.add_adapter(*arguments)
    with pytest.raises(UnknownAdapterError, match=r"adapter_id must be a text, not \['law'\]"):
        llm.remove_adapter(["law"])


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ([("law", "adapters/A1")], r"adapters must be a lora_adapter.json or its folder, or a dict .*, not \[\('law'"),
        (5, "adapters must be .*, not 5"),
        ("", "adapters must be .*, not ''"),
        ({"law": 3}, "adapter law: its folder must be a path, not 3"),
        ({"law": "nowhere"}, "adapter law: no such folder: nowhere"),
        ({3: "adapters/A1"}, "an adapter's name must be a text, not 3"),
        ({"base": "adapters"}, "no adapter can be named 'base'"),
    ],
)
def test_what_cannot_be_adapters_is_said(adapters, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    for make in (LLM, AutoModel.from_pretrained):
        with pytest.raises((ConfigError, AdapterError), match=message):
            make("demo", adapters=adapters)


def test_stream_joins_to_the_final_text(llm):
    chunks: dict[int, str] = {}
    outputs = {}
    for chunk in llm.stream(PROMPTS[:5], GREEDY, ADAPTERS[:5]):
        chunks[chunk.index] = chunks.get(chunk.index, "") + chunk.text
        if chunk.output is not None:
            outputs[chunk.index] = chunk.output
    assert [chunks[index] for index in range(5)] == [outputs[index].outputs[0].text for index in range(5)]


def test_outputs_say_who_answered_and_why_it_ended(llm):
    first = llm.generate(PROMPTS[0], SamplingParams(temperature=0, max_tokens=2))[0]
    second = llm.generate(PROMPTS[0], GREEDY, "A1")[0]
    assert (first.adapter_id, first.adapter_digest) == (None, None)
    assert second.adapter_id == "A1" and len(second.adapter_digest) == 64
    assert (first.outputs[0].finish_reason, second.outputs[0].finish_reason) == ("length", "stop")
    assert len(first.outputs[0].token_ids) == 2
    metrics = second.metrics
    assert metrics.arrival_time <= metrics.first_token_time <= metrics.finished_time


def test_a_refused_request_leaves_the_engine_clean(llm):
    before = texts(llm)
    for prompts, adapters, error in (
        ("", None, RequestError),
        ("word " * 3000, None, RequestError),
        ([PROMPTS[0], PROMPTS[1]], "A9", UnknownAdapterError),
        ([PROMPTS[0]], ["A1", "A2"], RequestError),
    ):
        with pytest.raises(error):
            llm.generate(prompts, GREEDY, adapters)
    engine_of(llm).check_integrity()
    assert texts(llm) == before


def test_a_stream_that_nobody_reads_on_frees_its_blocks(llm):
    for _ in llm.stream(PROMPTS[:4], SamplingParams(temperature=0, max_tokens=1), ADAPTERS[:4]):
        break  # all four are finished, one is read
    stream = llm.stream(PROMPTS[:4], GREEDY, ADAPTERS[:4])
    stream.advance()
    stream.close()
    assert not engine_of(llm).has_unfinished()
    engine_of(llm).check_integrity()


def test_unknown_adapter_may_be_the_base_model():
    llm = LLM("demo", on_missing_adapter="base")
    output = llm.generate(PROMPTS[0], GREEDY, "B7")[0]
    assert output.adapter_id is None and "B7" in output.warnings[0]
    assert output.outputs[0].text == llm.generate(PROMPTS[0], GREEDY)[0].outputs[0].text


def test_wrong_arguments():
    for name, value in (("dtype", "int8"), ("on_missing_adapter", "ignore"), ("model", "nowhere"), ("adapters", "no")):
        with pytest.raises(MindgenError, match=value):
            LLM(**{name: value})


def test_two_engines_in_one_process(llm, executor):
    other = LLM("demo", config=EngineConfig(block_size=8, executor=executor))
    assert texts(other) == texts(llm)
