"""MindFormers' interface, against the LLM's own answers and transformers' tokenizer."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from loops import engine_of
from tiny_models import load_oracle
from tiny_tokenizers import make_tokenizer

from mindgen import LLM, AutoModel, AutoTokenizer, SamplingParams, TextIteratorStreamer, TextStreamer
from mindgen.compat.mindformers import Model
from mindgen.compat.padding import without_padding
from mindgen.errors import ConfigError, RequestError, UnknownAdapterError
from mindgen.store.embedded import demo_folder

ANSWERS = json.loads((Path(__file__).parents[1] / "data" / "demo_answers.json").read_text(encoding="utf-8"))
CHOSEN = [next(a for a in ANSWERS if a["adapter_id"] == name) for name in ("A1", None, "A3")]
PROMPTS = [answer["prompt"] for answer in CHOSEN]
ADAPTERS = [answer["adapter_id"] for answer in CHOSEN]
TEXTS = [answer["prompt"] + answer["answer"] for answer in CHOSEN]


@pytest.fixture(scope="module")
def llm():
    return LLM("demo")


@pytest.fixture(scope="module")
def model(llm):
    return Model(llm)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained("demo")


def test_a_row_is_continued_as_the_llm_does(model, llm, tokenizer):
    input_ids = tokenizer(PROMPTS[0])["input_ids"]
    (row,) = model.generate(input_ids, max_length=128, do_sample=False, adapter_id="A1")
    output = llm.generate(PROMPTS[0], SamplingParams(temperature=0, max_tokens=100), "A1")[0]
    assert row.dtype == np.int32 and row.tolist() == input_ids + output.outputs[0].token_ids
    assert tokenizer.decode(row, skip_special_tokens=True) == TEXTS[0]
    assert model.generate(input_ids, max_length=len(input_ids) + 3)[0].shape == (len(input_ids) + 3,)
    assert model.generate(input_ids, max_length=5, max_new_tokens=2)[0].shape == (len(input_ids) + 2,)
    engine_of(llm).check_integrity()


def test_the_streaming_sample_of_the_manual(capsys):
    tok = AutoTokenizer.from_pretrained("gpt2")
    model = AutoModel.from_pretrained("gpt2")
    inputs = tok(["An increasing sequence: one,"], return_tensors=None, add_special_tokens=False)
    model.generate(inputs["input_ids"], streamer=TextStreamer(tok), max_length=20, top_k=1)
    assert capsys.readouterr().out.startswith("An increasing sequence: one, two, three,")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_stripped_on_either_side(model, tokenizer, side):
    batch = tokenizer(PROMPTS, padding="max_length", max_length=40, padding_side=side)
    expected = model.generate([tokenizer.encode(prompt) for prompt in PROMPTS], adapter_id=ADAPTERS)
    assert tokenizer.decode(expected, skip_special_tokens=True) == TEXTS
    forms = [batch["input_ids"], np.array(batch["input_ids"])]
    for input_ids in forms:
        assert list(map(list, model.generate(input_ids, adapter_id=ADAPTERS))) == list(map(list, expected))
    shifted = [[9 if token_id == tokenizer.pad_token_id else token_id for token_id in row] for row in forms[0]]
    for options in ({"pad_token_id": 9}, {"attention_mask": batch["attention_mask"]}):
        assert list(map(list, model.generate(shifted, adapter_id=ADAPTERS, **options))) == list(map(list, expected))


@pytest.fixture(scope="module")
def oracle():
    return load_oracle(demo_folder(), torch.float32)


def continued_by(oracle, rows: list[list[int]], mask: list[list[int]] | None, pad: int) -> list[list[int]]:
    """What transformers makes of rows that are padded on the left, without the padding around it."""
    options = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    answers = oracle.generate(torch.tensor(rows), max_new_tokens=6, do_sample=False, pad_token_id=pad, **options)
    starts = [0] * len(rows) if mask is None else [row.count(0) for row in mask]
    return [answer.tolist()[start:] for answer, start in zip(answers, starts, strict=True)]


@pytest.mark.parametrize(
    "rows",
    [
        [[2, 1, 271, 449]],
        [[1, 271, 449, 2]],
        [[2, 1, 271, 449, 2, 2]],
        [[1, 271, 449, 2], [1, 449, 271, 2]],
        [[2, 1, 271, 449], [2, 1, 449, 271]],
    ],
)
def test_an_end_token_that_may_be_text_is_kept_as_transformers_does(model, oracle, rows):
    expected = continued_by(oracle, rows, None, pad=2)
    assert [row.tolist() for row in model.generate(rows, pad_token_id=2, max_new_tokens=6, ignore_eos=True)] == expected


@pytest.mark.parametrize("pad", [2, 0])
def test_rows_that_differ_at_an_end_are_padded_there(model, oracle, pad):
    """2 ends texts, so that transformers wants a mask; from 0, which is nothing but padding, it makes one itself."""
    rows = [[pad, pad, 1, 271], [pad, 1, 271, 449], [1, 271, 449, 430]]
    mask = [[int(token_id != pad) for token_id in row] for row in rows]
    expected = continued_by(oracle, rows, mask, pad)
    if pad == 0:
        answers = oracle.generate(torch.tensor(rows), max_new_tokens=6, do_sample=False, pad_token_id=pad).tolist()
        assert [answer[row.count(0) :] for answer, row in zip(answers, mask, strict=True)] == expected
    on_the_right = [[*row[row.count(pad) :], *row[: row.count(pad)]] for row in rows]
    for padded in (rows, on_the_right):
        answers = model.generate(padded, pad_token_id=pad, max_new_tokens=6, ignore_eos=True)
        assert [row.tolist() for row in answers] == expected


def test_a_lone_row_loses_what_is_nothing_but_padding(model, oracle):
    expected = continued_by(oracle, [[0, 0, 1, 271]], None, pad=0)[0][2:]
    for row in ([0, 0, 1, 271], [1, 271, 0, 0]):
        assert model.generate(row, pad_token_id=0, max_new_tokens=6, ignore_eos=True)[0].tolist() == expected


def test_what_a_tokenizer_puts_around_prompts_is_inside_of_padding():
    """GPT-2's padding is its end and its beginning: of [0, a, b], [0, 0, a] the last 0 belongs to the prompt."""
    assert without_padding([[0, 5, 6], [0, 0, 5]], 0, False, (1, 0)) == [[0, 5, 6], [0, 5]]
    assert without_padding([[5, 6, 0], [5, 0, 0]], 0, False, (0, 1)) == [[5, 6, 0], [5, 0]]
    assert without_padding([[5, 6, 7], [5, 0, 0]], 0, False, (0, 1)) == [[5, 6, 7], [5]]
    assert without_padding([[5, 6, 0], [5, 0]], 0, False) == [[5, 6, 0], [5, 0]]
    assert without_padding([[5, 6, 0], [5, 0]], None, True) == [[5, 6, 0], [5, 0]]


def test_sampling_beams_and_several_outputs(model, llm, tokenizer):
    input_ids = tokenizer("I love")["input_ids"]
    options = {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 5}
    rows = model.generate(input_ids, do_sample=True, max_new_tokens=8, num_return_sequences=3, **options)
    output = llm.generate("I love", SamplingParams(max_tokens=8, n=3, **options))[0]
    assert [row.tolist() for row in rows] == [input_ids + each.token_ids for each in output.outputs]
    (greedy,) = model.generate(input_ids, max_new_tokens=8, temperature=1.5)
    assert greedy.tolist() == model.generate(input_ids, max_new_tokens=8)[0].tolist()
    beams = model.generate(input_ids, num_beams=3, max_new_tokens=8, return_dict_in_generate=True)
    assert beams["sequences"] is beams.sequences and len(beams.outputs) == 1
    assert beams.sequences[0].tolist() == input_ids + beams.outputs[0].outputs[0].token_ids
    with pytest.raises(KeyError):
        beams["scores"]


def test_other_end_tokens(model, tokenizer):
    input_ids = tokenizer(PROMPTS[1])["input_ids"]
    whole = model.generate(input_ids)[0].tolist()
    end = whole[len(input_ids) + 2]
    assert model.generate(input_ids, eos_token_id=end)[0].tolist() == whole[: len(input_ids) + 3]


def test_a_streamer_gets_prompt_and_answer_in_another_thread(model, tokenizer):
    for skip_prompt, expected in ((True, CHOSEN[0]["answer"]), (False, TEXTS[0])):
        streamer = TextIteratorStreamer(tokenizer, skip_prompt, timeout=60)
        arguments = {"streamer": streamer, "max_new_tokens": 80, "adapter_id": "A1"}
        thread = threading.Thread(target=model.generate, args=(tokenizer(PROMPTS[0])["input_ids"],), kwargs=arguments)
        thread.start()
        pieces = list(streamer)
        thread.join()
        assert "".join(pieces) == expected and len(pieces) > 3


def test_rows_stream_side_by_side(model, tokenizer):
    pieces: list[list[str]] = []
    streamer = TextStreamer(tokenizer, skip_prompt=True, callback=pieces.append)
    model.generate([tokenizer.encode(prompt) for prompt in PROMPTS], streamer=streamer, adapter_id=ADAPTERS)
    assert ["".join(row) for row in zip(*pieces, strict=True)] == [answer["answer"] for answer in CHOSEN]


def test_streamers_of_others_are_served(model, tokenizer, capsys):
    model.generate(tokenizer(PROMPTS[0])["input_ids"], transformers.TextStreamer(tokenizer), "A1")
    assert capsys.readouterr().out.removeprefix("<s>").replace("</s>", "").strip() == TEXTS[0]


def test_failures_are_raised_and_end_the_streamer(model, llm, tokenizer):
    input_ids = tokenizer("I love")["input_ids"]
    for arguments, error, message in (
        ({"input_ids": []}, RequestError, "at least"),
        ({"input_ids": [input_ids, [9, 9]], "pad_token_id": 9}, RequestError, "empty"),
        ({"input_ids": [input_ids, input_ids], "adapter_id": [None, "A9"]}, UnknownAdapterError, "A9"),
        ({"input_ids": input_ids, "max_length": 2}, RequestError, "max_length 2 leaves nothing"),
        ({"input_ids": input_ids, "use_past": True}, RequestError, "unknown sampling option 'use_past'"),
        ({"input_ids": input_ids, "num_beams": 2}, RequestError, "no beam search"),
        ({"input_ids": input_ids, "attention_mask": [1]}, RequestError, "shape of input_ids"),
    ):
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=10)
        with pytest.raises(error, match=message):
            model.generate(streamer=streamer, **arguments)
        list(streamer)  # does not wait for ever
    engine_of(llm).check_integrity()
    assert not engine_of(llm).has_unfinished()


def test_from_pretrained_takes_limits_and_adapters():
    root = Path(__file__).parents[2]
    model = AutoModel.from_pretrained(demo_folder(), adapters=root / "adapters", max_num_seqs=2, num_blocks=40)
    assert model.llm.memory_plan.num_blocks == 40 and model.llm.adapter_ids == ["A1", "A2", "A3"]
    with pytest.raises(ConfigError, match="did you mean 'max_num_seqs'"):
        AutoModel.from_pretrained("demo", max_nun_seqs=2)


@pytest.mark.parametrize("kind", ["byte_level_bpe", "byte_fallback_unigram"])
def test_the_tokenizer_is_that_of_transformers(kind, tmp_path):
    folder = make_tokenizer(kind, tmp_path)
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "chat_template": "{{ messages[0].content }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = AutoTokenizer.from_pretrained(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    texts = ["Hello world,", "我爱北京 🙂 and two"]
    for options in (
        {}, {"add_special_tokens": False}, {"padding": True}, {"padding": True, "return_tensors": "np"},
        {"padding": "max_length", "max_length": 50, "padding_side": "left"}, {"truncation": True, "max_length": 3},
    ):  # fmt: skip
        expected, got = theirs(texts, **options), ours(texts, **options)
        for key in ("input_ids", "attention_mask"):
            assert np.array_equal(got[key], expected[key]) if "return_tensors" in options else got[key] == expected[key]
    ids = theirs(texts)["input_ids"]
    assert ours(texts[0])["input_ids"] == ids[0] == ours.encode(texts[0])
    for skipped in (False, True):
        assert ours.batch_decode(ids, skipped) == theirs.batch_decode(ids, skip_special_tokens=skipped)
        assert ours.decode(np.array(ids[0]), skipped) == theirs.decode(ids[0], skip_special_tokens=skipped)
    assert ours.decode([np.array(row) for row in ids]) == ours.batch_decode(ids)
    assert (ours.pad_token_id, ours.bos_token_id, ours.eos_token_id) == (2, 1, 2) and len(ours) == len(theirs)
    messages = [{"role": "user", "content": "Hello"}]
    assert ours.apply_chat_template(messages, tokenize=False) == "Hello"
    assert ours.apply_chat_template(messages) == ours.encode("Hello", add_special_tokens=False)


def test_what_a_tokenizer_cannot_do(tokenizer):
    for options in ({"return_tensors": "pt"}, {"padding": "max_length"}, {"truncation": True}):
        with pytest.raises(RequestError):
            tokenizer("a", **options)
    with pytest.raises(RequestError, match="padding=True"):
        tokenizer(["a", "a longer text"], return_tensors="np")
