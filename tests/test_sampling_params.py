"""SamplingParams and the names that other systems have for them."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from mindgen.compat.option_aliases import evaluation_params, translate_options
from mindgen.errors import RequestError
from mindgen.sampling_params import SamplingParams

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n", [0, 1.5, True, "2", 10**9, np.bool_(True), np.array([2, 3])]),
        ("best_of", [0, 10**9]),
        ("temperature", [-0.1, NAN, INFINITY, "hot", 10**400, b"1", 1j]),
        ("top_k", [-2, 1.5, 10**30, 10**5000]),
        ("top_p", [0, 1.1, NAN, 1e-60]),
        ("min_p", [-0.1, 1.1]),
        ("typical_p", [0, 1.1, 1e-60]),
        ("repetition_penalty", [0, -1, INFINITY, 1e-300, 1e300]),
        ("presence_penalty", [-2.1, 2.1, NAN]),
        ("frequency_penalty", [-2.1, 2.1]),
        ("seed", [-2, 2**64, 0.5]),
        ("max_tokens", [0, -1, 2.0]),
        ("min_tokens", [-1, 17]),
        ("stop", ["", ["a", ""], [1], 5, [None], b"ab", {"a": 1}, ["a", "b\ud83d"]]),
        ("stop_token_ids", [[-1], ["a"], [1.0], 5, b"ab", "ab", [True], [None], [2**31], np.array([1.5]), {1: 2}]),
        (
            "logit_bias",
            [{-1: 1.0}, {"a": 1.0}, {1: NAN}, {1: INFINITY}, [1], {1.0: 1}, {True: 1}, {1: 1e300}],
        ),
        ("bad_words", ["", [""], [3], [None], b"ab", ["\ud800"]]),
        ("allowed_token_ids", [[], [-1], b"ab", bytearray(b"ab"), [1.0], [True]]),
        ("guided_choice", [5, b"ab", {"a": 1}]),
        ("ignore_eos", [None, 1, "yes"]),
        ("use_beam_search", ["no"]),
        ("skip_special_tokens", [0]),
        ("include_stop_str_in_output", [[]]),
        ("logprobs", [-2, 0.5]),
        ("prompt_logprobs", [-2]),
        ("length_penalty", [NAN, 1e300, -1e300]),
        ("early_stopping", ["always", None]),
        ("num_speculative_tokens", [-1]),
        ("prompt_lookup_max", [0]),
        ("deadline_seconds", [0, -1.0, INFINITY]),
        ("priority", [0.5, None]),
    ],
)
def test_values_out_of_range_are_named_in_one_line(name, values):
    for value in values:
        with pytest.raises(RequestError, match=name) as raised:
            SamplingParams(**{name: value})
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 3, "best_of": 2}, "best_of must be at least n, which is 3, not 2"),
        ({"n": 2, "temperature": 0}, "n must be 1 at temperature 0"),
        ({"best_of": 2, "temperature": 0}, "best_of must be 1 at temperature 0"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens must be at most max_tokens, 4, not 5"),
        ({"guided_json": {}, "guided_regex": "a"}, "not guided_json and guided_regex"),
        ({"use_beam_search": True, "num_speculative_tokens": 2}, "num_speculative_tokens must be 0"),
        ({"use_beam_search": True, "stop": "a"}, "stop must be empty with use_beam_search"),
        ({"use_beam_search": True, "logprobs": 1}, "logprobs must be None with use_beam_search"),
    ],
)
def test_what_does_not_go_together(options, message):
    with pytest.raises(RequestError, match=message):
        SamplingParams(**options)


def test_forms_are_made_one():
    params = SamplingParams(
        stop="a", stop_token_ids=[1, 2], bad_words=["b"], allowed_token_ids=range(3), seed=-1, logprobs=True,
        guided_choice=["x", "y"], max_tokens=None, min_tokens=40,
    )  # fmt: skip
    assert (params.stop, params.stop_token_ids, params.bad_words) == (("a",), (1, 2), ("b",))
    assert (params.allowed_token_ids, params.guided_choice) == ((0, 1, 2), ("x", "y"))
    assert (params.seed, params.logprobs) == (None, 1)
    assert SamplingParams(stop=None, stop_token_ids=None, bad_words=None) == SamplingParams()


def test_numpys_numbers_are_pythons():
    """So that none of them wraps around, and that messages to other processes hold them."""
    params = SamplingParams(
        n=np.int8(2), max_tokens=np.int8(100), temperature=np.float32(0.5), seed=np.uint64(2**64 - 1),
        top_k=np.array(3), stop_token_ids=np.array([1, 2]), allowed_token_ids=[np.int64(3)],
        logit_bias={np.int32(4): np.float32(1.5)}, ignore_eos=np.bool_(True), stop=np.array(["a", "b"]),
    )  # fmt: skip
    values = [params.n, params.max_tokens, params.temperature, params.seed, params.top_k, params.ignore_eos]
    assert values == [2, 100, 0.5, 2**64 - 1, 3, True]
    assert [type(value) for value in values] == [int, int, float, int, int, bool]
    assert (params.stop_token_ids, params.allowed_token_ids, params.stop) == ((1, 2), (3,), ("a", "b"))
    assert params.logit_bias == {4: 1.5}
    for value in (*params.stop_token_ids, *params.allowed_token_ids, *params.logit_bias):
        assert type(value) is int


def test_frozen_and_picklable():
    bias = {3: 1.0}
    params = SamplingParams(temperature=0.5, stop=["a"], logit_bias=bias)
    bias[4] = 2.0
    assert params.logit_bias == {3: 1.0}
    assert pickle.loads(pickle.dumps(params)) == params
    with pytest.raises(FrozenInstanceError):
        params.top_k = 3


def test_derived_values():
    assert SamplingParams(temperature=1e-6).is_greedy and not SamplingParams(temperature=0.01).is_greedy
    assert SamplingParams(n=2).num_sequences == 2 and SamplingParams(n=2, best_of=5).num_sequences == 5
    assert SamplingParams(n=4, temperature=0, use_beam_search=True).num_sequences == 4
    assert [SamplingParams(n=3, seed=2**64 - 1).sample_seed(i, fallback=5) for i in range(3)] == [2**64 - 1, 0, 1]
    assert SamplingParams().sample_seed(2, fallback=5) == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.5, "top_k": None, "max_tokens": 3}, {"temperature": 0.5, "max_tokens": 3}),
        ({"do_sample": False, "temperature": 0.7, "max_length": 30}, {"temperature": 0.0, "max_tokens": 20}),
        ({"do_sample": True, "max_length": 30, "max_new_tokens": 5}, {"max_tokens": 5}),
        ({"min_length": 12, "max_new_tokens": 5}, {"min_tokens": 2, "max_tokens": 5}),
        ({"min_new_tokens": 3, "max_new_tokens": 5}, {"min_tokens": 3, "max_tokens": 5}),
        (
            {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
            {"n": 2, "best_of": 4, "use_beam_search": True, "length_penalty": 0.5},
        ),
        ({"num_beams": 1}, {}),
        ({"stop_token_list": "a;b c;"}, {"stop": ["a", "b c"]}),
        ({"new_token_limit": True, "max_new_tokens": 7, "seq_length": 50}, {"max_tokens": 7}),
        ({"new_token_limit": False, "max_new_tokens": 7, "seq_length": 50}, {"max_tokens": 40}),
        ({"new_token_limit": False, "max_new_tokens": 7}, {"max_tokens": None}),
        ({"new_token_limit": 9}, {"max_tokens": 9}),
        ({"eval_temperature": 0.1, "eval_top_k": 3, "top_k": 5}, {"top_k": 5}),
    ],
)
def test_other_names_for_prompts_of_ten_tokens(options, expected):
    assert translate_options(options, prompt_len=10) == SamplingParams(**expected)


def test_evaluation_set():
    options = {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "eval_temperature": 0.1, "eval_top_p": 0.5, "n": 2}
    assert evaluation_params(options) == SamplingParams(temperature=0.1, top_k=5, top_p=0.5, n=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_lenght": 5}, "unknown sampling option 'max_lenght'; did you mean 'max_length'?"),
        ({"max_length": 10}, "max_length 10 leaves nothing to generate: the prompt has 10"),
        ({"new_token_limit": True}, "new_token_limit needs max_new_tokens"),
        ({"eval_top_p": 2.0}, "top_p must be above 0 and at most 1, not 2.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(RequestError, match=message.replace("?", r"\?")):
        evaluation_params(options, prompt_len=10)
