"""What each of veRL's keys means here."""

import pytest
from batch_jobs import FILES, job, notes, refusal

from mindgen.batch.verl_keys import VERL_KEYS

TARGETS = {row.name: row.target for row in VERL_KEYS}
HONOURED = {row.name for row in VERL_KEYS if row.effect == "honoured"}

# What a key is set to, and where that is found; and a value of another kind.
GOOD_AND_BAD = {
    "trainer.nnodes": ("2", lambda job: job.runner == "ray", "two"),
    "trainer.n_gpus_per_node": ("3", lambda job: job.engine.data_parallel_size == 3, "1.5"),
    "trainer.n_npus_per_node": ("3", lambda job: job.engine.data_parallel_size == 3, "true"),
    "trainer.device": ("npu", lambda job: job.engine.device_target == "Ascend", "tpu"),
    "data.path": ("[a.parquet, b.parquet]", lambda job: job.input == ["a.parquet", "b.parquet"], "5"),
    "data.train_files": ("['a.parquet']", lambda job: job.input == "a.parquet", "[1]"),
    "data.output_path": ("'a b.parquet'", lambda job: job.output == "a b.parquet", "[x]"),
    "data.prompt_key": ("'1'", lambda job: job.columns.prompt == "1", "1"),
    "data.n_samples": ("3", lambda job: job.n_samples == 3, "3.0"),
    "data.batch_size": ("7", lambda job: job.batch_size == 7, "many"),
    "data.apply_chat_template_kwargs": (
        "{enable_thinking: False}", lambda job: job.prompts.template_variables == {"enable_thinking": False}, "5"
    ),
    "data.truncation": ("left", lambda job: job.prompts.truncation == "left", "middle"),
    "data.max_prompt_length": ("99", lambda job: job.prompts.max_length == 99, "long"),
    "data.max_response_length": ("99", lambda job: job.sampling.max_tokens == 99, "long"),
    "model.path": ("other", lambda job: job.model.path == "other", "5"),
    "model.lora_adapter_path": (
        "some/folder", lambda job: (job.model.adapters, job.adapter_id) == ({"lora": "some/folder"}, "lora"), "[a]"
    ),
    "rollout.temperature": ("0.5", lambda job: job.sampling.temperature == 0.5, "hot"),
    "rollout.top_k": ("7", lambda job: job.sampling.top_k == 7, "0.5"),
    "rollout.top_p": ("0.25", lambda job: job.sampling.top_p == 0.25, "true"),
    "rollout.repetition_penalty": ("1.1", lambda job: job.sampling.repetition_penalty == 1.1, "x"),
    "rollout.do_sample": ("False", lambda job: job.sampling.is_greedy, "0"),
    "rollout.ignore_eos": ("True", lambda job: job.sampling.ignore_eos, "1"),
    "rollout.prompt_length": ("99", lambda job: job.prompts.max_length == 99, "1k"),
    "rollout.response_length": ("99", lambda job: job.sampling.max_tokens == 99, "1k"),
    "rollout.seed": ("42", lambda job: job.seed == 42, "x"),
    "rollout.calculate_log_probs": ("True", lambda job: job.outputs.logprobs, "some"),
    "rollout.dtype": ("half", lambda job: job.model.dtype == "float16", "int4"),
    "rollout.tensor_model_parallel_size": ("2", lambda job: job.engine.tensor_parallel_size == 2, "two"),
    "rollout.pipeline_model_parallel_size": ("2", lambda job: job.engine.pipeline_parallel_size == 2, "two"),
    "rollout.data_parallel_size": ("2", lambda job: job.engine.data_parallel_size == 2, "two"),
    "rollout.gpu_memory_utilization": ("0.25", lambda job: job.engine.memory_utilization == 0.25, "[1]"),
    "rollout.max_num_batched_tokens": ("4096", lambda job: job.engine.max_num_batched_tokens == 4096, "4k"),
    "rollout.max_num_seqs": ("64", lambda job: job.engine.max_num_seqs == 64, "64.5"),
    "rollout.max_model_len": ("256", lambda job: job.engine.max_model_len == 256, "x"),
    "rollout.enable_chunked_prefill": ("False", lambda job: not job.engine.enable_chunked_prefill, "5"),
    "rollout.enable_prefix_caching": ("False", lambda job: not job.engine.enable_prefix_caching, "5"),
    "actor_rollout_ref.rollout.n": ("4", lambda job: job.n_samples == 4, "x"),
}  # fmt: skip


def test_the_table_of_this_test_is_whole():
    assert GOOD_AND_BAD.keys() == HONOURED
    assert len({row.name for row in VERL_KEYS}) == len(VERL_KEYS)


@pytest.mark.parametrize("key", GOOD_AND_BAD)
def test_each_key_that_is_honoured(key):
    good, is_there, bad = GOOD_AND_BAD[key]
    target = TARGETS[key]
    others = [word for word in (*FILES, "data.n_samples=1") if TARGETS[word.partition("=")[0]] != target]
    assert not is_there(job(*FILES, "data.n_samples=1")), "the value is the default"
    for operation in ("", "+", "++"):
        assert is_there(job(*others, f"{operation}{key}={good}"))
    if target not in ("input", "output"):
        assert not is_there(job(*others, "data.n_samples=1", f"{key}={good}", f"~{key}"))
    assert refusal(*others, f"{key}={bad}").startswith(f"{key} must be ")


@pytest.mark.parametrize("row", [row for row in VERL_KEYS if row.effect == "ignored"], ids=lambda row: row.name)
def test_each_key_that_is_ignored_is_said_to_be(row):
    name = row.name.removesuffix(".*")
    value = row.allowed[0] if row.allowed else "True" if row.kind == "truth" else "{a: 1}"
    key = f"{name}.some.thing" if row.name != name else name
    config = job(*FILES, f"{key}={value}")
    assert config == job(*FILES)
    assert notes(*FILES, f"{key}={value}") == [f"of no effect here, and ignored: {name}"]
    assert notes(*FILES, f"{key}=null") == []
    if row.allowed:
        assert refusal(*FILES, f"{key}=other").startswith(f"{key} must be {row.allowed[0]}")


@pytest.mark.parametrize("row", [row for row in VERL_KEYS if row.effect == "refused"], ids=lambda row: row.name)
def test_each_key_that_is_refused_but_for_harmless_values(row):
    for value in row.allowed:
        text = "null" if value is None else str(value)
        assert job(*FILES, f"{row.name}={text}") == job(*FILES)
        assert notes(*FILES, f"{row.name}={text}") == []
    message = refusal(*FILES, f"++{row.name}=something")
    assert message.startswith(f"{row.name} must be null") and message.endswith(f"not 'something': {row.note}")


def test_random_weights_are_refused_however_often_they_are_asked_for():
    for word in ("rollout.load_format=dummy", "++actor_rollout_ref.rollout.load_format=dummy"):
        assert "dummy stands for random weights" in refusal(*FILES, word)
