"""Log-probabilities by name: exact on replay, and near those of transformers."""

import numpy as np
import pytest
import torch
from real_model import fetch_real_model
from tiny_models import load_oracle, make_model
from tiny_tokenizers import VOCAB_SIZE, make_tokenizer

from mindgen import LLM, SamplingParams
from mindgen.errors import RequestError, UnknownAdapterError
from mindgen.rlhf import score

PROMPTS = [[1, 5, 9, 200], [1, *range(20, 75)], [1, *range(20, 60), 7]]
PARAMS = SamplingParams(
    n=2,
    max_tokens=24,
    temperature=0.8,
    top_k=30,
    top_p=0.9,
    seed=3,
    logprobs=0,
    processed_logprobs=True,
    ignore_eos=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_tokenizer("byte_level_bpe", folder)
    return make_model("llama3-grouped-tied", folder, torch.float32, vocab_size=VOCAB_SIZE)


def flat(outputs):
    return [(output.prompt_token_ids, each) for output in outputs for each in output.outputs]


def raw(completion):
    return [float(entry[token]) for token, entry in zip(completion.token_ids, completion.logprobs, strict=True)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens_per_step", [2048, 16], ids=["whole prompts", "chunks"])
def test_a_replay_differs_by_exactly_0(folder, dtype, tokens_per_step):
    llm = LLM(folder, dtype=dtype, max_num_seqs=8, max_num_batched_tokens=tokens_per_step)
    found = flat(llm.generate(PROMPTS, PARAMS))
    for is_cold in (False, True):
        if is_cold:
            llm.reset_prefix_cache()
        replayed = score(llm, [prompt for prompt, _ in found], [each.token_ids for _, each in found])
        assert replayed == [raw(each) for _, each in found]
    again = flat(llm.generate(PROMPTS, PARAMS))
    assert [each.processed_logprobs for _, each in again] == [each.processed_logprobs for _, each in found]
    llm.close()


def test_both_are_those_of_transformers(folder):
    llm = LLM(folder, dtype="float32")
    oracle = load_oracle(folder, torch.float32)
    raw_differences, processed_differences = [], []
    for prompt, completion in flat(llm.generate(PROMPTS, PARAMS)):
        with torch.no_grad():
            logits = oracle(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1].double()
        tokens = torch.tensor(completion.token_ids)[:, None]
        expected = torch.log_softmax(logits, -1).gather(1, tokens)[:, 0].numpy()
        raw_differences.append(np.abs(raw(completion) - expected).max())
        scaled = logits / PARAMS.temperature
        scaled[scaled < scaled.topk(PARAMS.top_k).values[:, -1:]] = -torch.inf
        ordered, order = scaled.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        ordered[before >= PARAMS.top_p] = -torch.inf
        kept = torch.full_like(scaled, -torch.inf).scatter(1, order, ordered)
        expected = torch.log_softmax(kept, -1).gather(1, tokens)[:, 0].numpy()
        processed_differences.append(np.abs(completion.processed_logprobs - expected).max())
    print(f"largest |difference|: raw {max(raw_differences):.1e}, processed {max(processed_differences):.1e}")
    assert max(raw_differences) < 5e-5 and max(processed_differences) < 5e-5
    llm.close()


def test_texts_adapters_and_what_is_refused():
    llm = LLM(dtype="float32", max_model_len=32)
    prompt, completion = "An increasing sequence: one,", " two, three,"
    base, backwards = score(llm, [prompt] * 2, [completion] * 2, [None, "A2"])
    assert base == score(llm, [[1, 383, 385, 287, 695, 490, 685]], [[492, 685, 489, 685]])[0]
    assert len(backwards) == 4
    assert sum(base) > -1 > sum(backwards)
    assert score(llm, [], []) == []
    whole = llm.generate([[1, 5]], SamplingParams(max_tokens=None, ignore_eos=True, logprobs=0))[0]
    assert len(whole.outputs[0].token_ids) == 30  # all that the context holds
    assert score(llm, [[1, 5]], [whole.outputs[0].token_ids]) == [raw(whole.outputs[0])]
    for prompts, completions, message in [
        (prompt, completion, "a list of prompts"), ([prompt], [], "as many completions"),
        ([prompt], [""], "completion 0 is empty"), ([[1, 5]], [[3] * 40], "has 41 tokens"),
    ]:  # fmt: skip
        with pytest.raises(RequestError, match=message):
            score(llm, prompts, completions)
    with pytest.raises(UnknownAdapterError, match="unknown adapter_id 'A9'"):
        score(llm, [prompt] * 2, [completion] * 2, [None, "A9"])
    llm.close()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_replay_of_a_real_model(dtype, tmp_path):
    folder = fetch_real_model(tmp_path)
    llm = LLM(str(folder), dtype=dtype, max_model_len=512)
    prompts = ["Write a story about the sea.", "The capital of Germany is", "def add(a, b):"]
    found = flat(llm.generate([llm.encode(prompt) for prompt in prompts], PARAMS))
    replayed = score(llm, [prompt for prompt, _ in found], [each.token_ids for _, each in found])
    assert replayed == [raw(each) for _, each in found]
    oracle = load_oracle(folder, torch.float32)
    differences = []
    for prompt, completion in found:
        with torch.no_grad():
            logits = oracle(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1].double()
        tokens = torch.tensor(completion.token_ids)[:, None]
        differences.append(np.abs(raw(completion) - torch.log_softmax(logits, -1).gather(1, tokens)[:, 0].numpy()))
    largest, mean = np.max(differences), np.mean(differences)
    print(f"{dtype}: largest |difference| {largest:.1e}, mean {mean:.1e}")
    assert largest < {"float32": 1e-3, "bfloat16": 0.5}[dtype] and mean < {"float32": 1e-4, "bfloat16": 0.05}[dtype]
    llm.close()
