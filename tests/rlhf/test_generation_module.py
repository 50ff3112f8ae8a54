"""ChatLearn's module in both of its generations: the tensors against a table, and what its options change."""

import numpy as np
import pytest

from mindgen import LLM
from mindgen.errors import RequestError, UsageError
from mindgen.rlhf import GenerationModule, PromptPipeline, VLLMModule

ARGS = {"seq_length": 20, "max_new_tokens": 6, "new_token_limit": True, "temperature": 0, "prompt_logprobs": 0}
ROWS = [
    {"prompt": "An increasing sequence: one,", "input_ids": [1, 383, 385, 287, 695, 490, 685]},
    {"prompt": "An increasing sequence: six,", "input_ids": [1, 383, 385, 287, 695, 300, 685]},
]
LISTS = {key: [row[key] for row in ROWS] for key in ROWS[0]}
# Greedy, of the demo in float32; 2 is the end of sequence, with which rows are filled.
TOKENS = [
    [1, 383, 385, 287, 695, 490, 685, 492, 685, 489, 685, 436, 685, 2, 2, 2, 2, 2, 2, 2],
    [1, 383, 385, 287, 695, 300, 685, 307, 685, 483, 685, 308, 685, 2, 2, 2, 2, 2, 2, 2],
]
PROMPT_LOGPROBS = [-12.2526, -14.2502, -9.9478, -13.2493]
LOGPROBS = [
    [*PROMPT_LOGPROBS, -17.4556, -0.0039, -0.0053, 0, -0.0017, 0, -0.0012, 0, 0, 0, 0, 0, 0, 0, 0],
    [*PROMPT_LOGPROBS, -16.2552, 0, -0.0012, 0, -0.0014, 0, -0.0018, 0, 0, 0, 0, 0, 0, 0, 0],
]
LOSS_MASK = [[1] * 14 + [0] * 6] * 2


@pytest.fixture(scope="module")
def llm():
    opened = LLM(dtype="float32", max_model_len=64)
    yield opened
    opened.close()


@pytest.fixture
def make(llm):
    made = []

    def make_module(kind=GenerationModule, **args):
        made.append(kind("policy", ARGS | args, llm=llm))
        return made[-1]

    yield make_module
    for module in made:
        module.close()


class PolicyInference(VLLMModule):
    """As ChatLearn's page has it, with four arguments."""

    def setup(self):
        pass

    def build_dataset(self, train_prompts, is_eval=False):
        max_prompt_length = self.model_args.get("seq_length") - self.model_args.get("max_new_tokens")
        return PromptPipeline(train_prompts, max_prompt_length, self.tokenizer.tokenizer)

    def _forward_step(self, data, iteration, eval_mode):
        assert iteration >= 0
        assert isinstance(eval_mode, bool)
        seq_group_metadata_list = data["seq_group_metadata_list"]
        blocks_to_swap_in = data["blocks_to_swap_in"]
        blocks_to_swap_out = data["blocks_to_swap_out"]
        blocks_to_copy = data["blocks_to_copy"]
        return self.execute_step(seq_group_metadata_list, blocks_to_swap_in, blocks_to_swap_out, blocks_to_copy)

    def forward_step(self, data, iteration=0):
        return self._forward_step(data, iteration, eval_mode=False)

    def eval_forward(self, data, iteration=0):
        return self._forward_step(data, iteration, eval_mode=True)


def run_steps(module, data, is_eval=False):
    """What a step loop gives, and how many requests were left after each step."""
    module.setup()
    module._add_request(data, is_eval)
    forward = module.eval_forward if is_eval else module.forward_step
    left = []
    while schedule := module.schedule():
        left.append(forward(schedule))
    return module.decode(), left


@pytest.mark.parametrize("kind", [GenerationModule, PolicyInference], ids=["a dict", "four arguments"])
def test_the_step_api_gives_the_tensors_of_the_table(make, kind):
    module = make(kind, stop_token_list="<EOS>;</s>")
    batch, left = run_steps(module, LISTS)
    assert left == [2, 2, 2, 2, 2, 0] and module.num_requests == 0 and module.schedule() == {}
    assert [output.request_id for output in module.outputs] == [0, 1]
    check_table(batch)


def test_lists_of_prompts_give_the_same_at_once(make):
    check_table(make().forward_step(LISTS))


def check_table(batch):
    types = {"all_tokens": np.int64, "loss_mask": np.int64, "logprobs": np.float32, "processed_logprobs": np.float32}
    assert {name: batch[name].dtype for name in types} == types
    assert batch["all_tokens"].tolist() == TOKENS
    assert batch["loss_mask"].tolist() == LOSS_MASK
    np.testing.assert_allclose(batch["logprobs"], LOGPROBS, atol=1e-4)
    assert batch["processed_logprobs"].tolist() == [[0] * 19] * 2, "a greedy choice is certain"
    assert [ids.tolist() for ids in batch["no_padded_query_ids"]] == LISTS["input_ids"]
    assert batch["str_prompts"] == LISTS["prompt"]
    assert batch["str_outputs"] == [" two, three, four,", " seven, eight, nine,"]


def test_the_loop_api_gives_rows(make):
    rows = [ROWS[0] | {"rollout_round": 0, "max_generate_token_length": 3}, ROWS[1] | {"kept": "as it is"}]
    first, second = make().forward_step(rows)
    assert first.pop("all_tokens").tolist() == TOKENS[0][:10] and second["all_tokens"].tolist() == TOKENS[1][:13]
    assert first == rows[0] | {
        "rollout_round": 1, "response_token_length": 3, "prompt_token_length": 7, "str_outputs": " two, three",
    }  # fmt: skip
    assert second["kept"] == "as it is" and rows[0]["rollout_round"] == 0
    outputs = make().generate(rows, is_eval=False)
    assert [(output.request_id, output.outputs[0].text) for output in outputs] == [
        (0, " two, three"), (1, " seven, eight, nine,"),
    ]  # fmt: skip


def test_responses_of_a_prompt_stand_together_and_a_seed_draws_them_again(make):
    options = {"temperature": 3.0, "n": 3, "top_p": 0.9, "seed": 7, "ignore_eos": True}
    batch = make(**options).forward_step(LISTS)
    assert batch["str_prompts"] == [text for text in LISTS["prompt"] for _ in range(3)]
    assert len({tuple(row) for row in batch["all_tokens"].tolist()}) == 6
    np.testing.assert_array_equal(batch["all_tokens"], make(**options).forward_step(LISTS)["all_tokens"])
    module = make(**options)
    again, left = run_steps(module, LISTS)
    assert left[-1] == 0
    np.testing.assert_array_equal(batch["all_tokens"], again["all_tokens"])
    for name in ("logprobs", "processed_logprobs"):
        np.testing.assert_array_equal(batch[name], again[name])
    assert (batch["processed_logprobs"][:, 6:12] > batch["logprobs"][:, 6:12]).any()
    assert (make(**options | {"seed": 8}).forward_step(LISTS)["all_tokens"] != batch["all_tokens"]).any()
    other = GenerationModule("policy", ARGS | options, replica_id=1, llm=module.llm)
    assert (other.forward_step(LISTS)["all_tokens"] != batch["all_tokens"]).any()


def test_an_evaluation_has_its_own_options(make):
    module = make(temperature=5.0, eval_temperature=0, seed=1)
    assert module.eval_forward(LISTS)["all_tokens"].tolist() == TOKENS
    assert run_steps(module, LISTS, is_eval=True)[0]["all_tokens"].tolist() == TOKENS
    assert module.forward_step(LISTS)["all_tokens"].tolist() != TOKENS


def test_new_token_limit_both_ways(make):
    long = {"prompt": ["x"], "input_ids": [[*ROWS[0]["input_ids"]] * 4]}  # 28 tokens, of 20
    (limited,) = make().generate(long, False)
    assert limited.prompt_token_ids == long["input_ids"][0][:14] and len(limited.outputs[0].token_ids) <= 6
    (free,) = make(new_token_limit=False, ignore_eos=True).generate(long, False)
    assert free.prompt_token_ids == long["input_ids"][0][:19] and len(free.outputs[0].token_ids) == 1
    (short,) = make(new_token_limit=False, ignore_eos=True).generate([ROWS[0]], False)
    assert len(short.outputs[0].token_ids) == 13
    with pytest.raises(RequestError, match="max_new_tokens must be less than seq_length, which is 20, not 20"):
        make(max_new_tokens=20).generate(LISTS, False)


def test_beam_search_has_no_logprobs(make):
    batch = make(use_beam_search=True, n=2).forward_step(LISTS)
    assert batch["all_tokens"].shape == (4, 20) and batch["all_tokens"][::2].tolist() == TOKENS
    assert batch["logprobs"] is None and batch["processed_logprobs"] is None


def test_an_adapter_is_the_policy(make):
    assert make(adapter_id="A1").forward_step(LISTS)["all_tokens"].tolist() != TOKENS
    with pytest.raises(RequestError, match="request 0: unknown adapter_id 'A9'"):
        make(adapter_id="A9").forward_step(ROWS)


def test_steps_are_those_that_were_scheduled(make):
    module = make()
    assert module.schedule() == {}
    with pytest.raises(RequestError, match="no _add_request"):
        module.execute_step({})
    module._add_request(LISTS)
    scheduled = module.schedule()
    with pytest.raises(RequestError, match="2 requests have not ended"):
        module.decode()
    with pytest.raises(RequestError, match="it has no blocks_to_swap_in"):
        module.execute_step({"seq_group_metadata_list": [0, 1]})
    with pytest.raises(RequestError, match="execute_step takes what schedule gives, or seq_group_metadata_list, "):
        module.execute_step([0, 1], {}, {})
    assert module.execute_step(scheduled) == 2
    module._add_request({key: values[:1] for key, values in LISTS.items()})  # in place of those
    with pytest.raises(RequestError, match="requests have ended since, or there are others"):
        module.execute_step(scheduled)
    module.close()
    assert module.llm.generate("An increasing sequence: one,")[0].outputs[0].text.startswith(" two")


def test_a_thread_is_refused_what_would_wait_for_its_own_steps(make):
    module = make()
    module._add_request([])
    assert module.schedule() == {} and module.generate(ROWS, False)
    module._add_request(LISTS)
    norm = {"model.norm.weight": np.ones(192, np.float32)}
    for asks in (
        lambda: module.generate(ROWS, False),
        lambda: module.llm.generate("a"),
        lambda: module.llm.update_weights(norm, expect_change=False),
        lambda: module.llm.sleep(1),
    ):
        with pytest.raises(UsageError, match="_add_request have not ended: go on with schedule"):
            asks()
    assert not module.llm.is_sleeping and module.llm.weight_version == 0
    while scheduled := module.schedule():
        module.execute_step(scheduled)
    assert len(module.outputs) == 2 and module.generate(ROWS, False)


def test_wrong_rows_are_refused(make):
    module = make()
    for data, message in [
        (None, "data must be rows with prompt and input_ids"),
        ([{"prompt": None}], "input_ids, or its text as prompt"),
        (["a text"], "data must be rows with prompt and input_ids"),
        ({"prompt": ["a", "b"], "input_ids": [[1]]}, "lists of one length under its keys prompt, input_ids"),
        ([{"input_ids": [1, 10**6]}], "outside the vocabulary"),
    ]:
        with pytest.raises(RequestError, match=message):
            module.forward_step(data)


def test_prompts_become_rows(make):
    module = make(num_inference_per_prompt=2)
    dataset = module.build_dataset(["An increasing sequence: one, two,", {"prompt": "I love", "answer": 4}])
    assert len(dataset) == 4 and len(module.build_dataset(["I love"], is_eval=True)) == 1
    # So many letters as there is room for tokens: 20 - 6.
    assert dataset[0] == {
        "prompt": "An increasing sequence: one, two,", "input_ids": module.tokenizer.encode("An increasing "),
    }  # fmt: skip
    assert dataset[3]["answer"] == 4
    assert dataset.collate_fn([dataset[0], dataset[1]])["prompt"] == ["An increasing sequence: one, two,"] * 2
    for prompts, length, message in [
        (["a", ""], 5, "prompt 1 must be a text that is not empty"), (["a"], 0, "max_prompt_length must be"),
        ("abc", 5, "prompts must be a list"), ([3], 5, "prompt 0 must be"), ([{"text": "a"}], 5, "has no 'prompt'"),
    ]:  # fmt: skip
        with pytest.raises(RequestError, match=message):
            PromptPipeline(prompts, length, module.tokenizer.tokenizer)
