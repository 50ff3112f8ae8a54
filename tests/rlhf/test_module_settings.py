"""ChatLearn's YAML: every key of its tables is honoured, mapped, or refused by name."""

import pytest

from mindgen.errors import ConfigError
from mindgen.rlhf import read_module_settings
from mindgen.rlhf.module_keys import MODULE_KEYS

POLICY = """
includes:
  - base.yaml
  - ${data_file:data.yaml}
n: 2
ignore_eos: ${policy_ignore_eos:False}
top_p: ${policy_top_p:0.9}
top_k: ${policy_top_k:-1}
temperature: ${policy_temperature:1.0}
use_beam_search: ${policy_use_beam_search:False}
eval_temperature: ${eval_temperature:0.5}
eval_top_k: ${eval_top_k:7}
eval_top_p: ${eval_top_p:0.8}
stop_token_list: ${stop_token_list:<EOS>;</s>}
new_token_limit: ${new_token_limit:True}
prompt_logprobs: ${prompt_logprobs:None}
max_num_batched_tokens: ${max_num_batched_tokens:4096}
max_paddings: ${max_paddings:512}
block_size: ${cache_block_size:32}
gpu_memory_utilization: ${gpu_memory_utilization:0.25}
swap_space: ${swap_space:4}
sliding_window: ${sliding_window:None}
tokenizer: ${tokenizer_load}
vllm_prompt_key: prompt
tensor_model_parallel_size: ${policy_tp}
pipeline_model_parallel_size: 1
"""
BASE = "seq_length: ${seq_length:1024}\nmax_new_tokens: ${max_new_tokens:512}\nbf16: True\nhidden_size: 8\nn: 1\n"


@pytest.fixture
def policy(tmp_path, monkeypatch):
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "data.yaml").write_text("prompt_key: ${prompt_key:question}")
    monkeypatch.setenv("tokenizer_load", "demo")
    monkeypatch.setenv("policy_top_k", "40")
    return tmp_path / "policy.yaml"


def test_every_key_is_taken(policy, capsys):
    settings = read_module_settings(policy)
    params = settings.params(9, 5, is_eval=False)
    assert (params.n, params.top_p, params.top_k, params.temperature, params.max_tokens) == (2, 0.9, 40, 1.0, 9)
    assert (params.stop, params.seed, params.ignore_eos, params.skip_special_tokens) == (
        ("<EOS>", "</s>"), 5, False, False,
    )  # fmt: skip
    assert params.logprobs == 1 and params.processed_logprobs and params.prompt_logprobs is None
    params = settings.params(9, 5, is_eval=True)
    assert (params.n, params.top_p, params.top_k, params.temperature) == (2, 0.8, 7, 0.5)
    engine = settings.engine
    assert (engine.max_model_len, engine.max_num_batched_tokens, engine.block_size) == (1024, 4096, 32)
    assert (engine.memory_utilization, engine.swap_space, engine.tensor_parallel_size) == (0.25, 4, 1)
    assert (settings.model, settings.checkpoint, settings.dtype) == ("demo", None, "bfloat16")
    assert settings.given["prompt_key"] == "question"
    assert settings.fit([*range(600)], 1024) == ([*range(512)], 512)
    warnings = capsys.readouterr().err
    assert warnings.count("max_paddings") <= 1  # once in a process
    assert read_module_settings(policy, top_k=3).sampling["top_k"] == 3


def test_max_paddings_is_warned_of_once(capsys):
    for size in (77, 78):
        read_module_settings({"max_paddings": size, "num_scheduler_steps": size})
    assert capsys.readouterr().err.count("num_scheduler_steps") == 1


def test_todays_names():
    settings = read_module_settings({"max_prompt_tokens_length": 10, "max_response_tokens_length": 6, "load": "demo"})
    assert settings.fit([*range(50)], 16) == ([*range(10)], 6) and settings.engine.max_model_len == 16
    assert settings.model == "demo" and settings.checkpoint is None
    settings = read_module_settings({"tokenizer": "demo", "load": "/weights"})
    assert (settings.model, settings.checkpoint) == ("demo", "/weights")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_padding": 3}, "unknown key 'max_padding'; did you mean 'max_paddings'?"),
        ({"sliding_window": 4096}, "sliding_window must be None, not 4096"),
        ({"loss_on_prompts": True}, "loss_on_prompts must be None or False, not True: set prompt_logprobs"),
        ({"init_shuffle_prompts": 2}, "shuffling is the data loader's"),
        ({"block_size": "16MB"}, "block_size must be a number of tokens, like 16, not '16MB'"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization must be above 0 and at most 1, not 1.5"),
        ({"new_token_limit": True}, "new_token_limit needs max_new_tokens"),
        ({"top_p": 2}, "top_p must be"),
        ({"eval_top_p": "a"}, "eval_top_p must be a number"),
        ({"seq_length": 0}, "seq_length must be at least 1"),
        ({"params_dtype": "int8"}, "params_dtype must be one of"),
        ({"bf16": True, "fp16": True}, "must not both be True"),
        ({"tensor_model_parallel_size": "two"}, "tensor_parallel_size must be"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ConfigError) as refusal:
        read_module_settings(options)
    assert message in str(refusal.value)


def test_files_that_are_none(tmp_path, monkeypatch):
    file = tmp_path / "policy.yaml"
    for text, message in [
        ("includes: [policy.yaml]", "includes itself"),
        ("includes: base.yaml", "includes must be a list of files"),
        ("includes: [missing.yaml]", "missing.yaml"),
        ("includes: ['${nowhere}']", "names no file"),
        ("tokenizer: a/${nowhere}", "needs the environment variable nowhere"),
        ("top_k: ${a b}", "must be like ${name} or ${name:default}"),
        ("stop_token_list: ['${nowhere}']", "needs an environment variable that is not set"),
        ("tokenizer: {a: '${nowhere}'}", "may stand in a value or a list, not within"),
        ("1: 2", "a key must be a name, not 1"),
        ("[1]", "must hold keys and values"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError) as refusal:
            read_module_settings(file)
        assert message in str(refusal.value)
    monkeypatch.setenv("folder", "models")
    file.write_text("tokenizer: ${folder}/${name:llama}\nstop_token_list: ['${folder}', b]")
    settings = read_module_settings(file)
    assert settings.model == "models/llama" and settings.sampling["stop"] == ["models", "b"]


def test_each_key_is_once_in_the_table():
    names = [key.name for key in MODULE_KEYS]
    assert len(names) == len(set(names))
