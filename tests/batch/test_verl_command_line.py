"""veRL's command line as typed, and what each of its keys means here."""

import shlex
from dataclasses import fields, replace

import pytest

from mindgen.batch.config import BatchConfig, ModelChoice, OutputOptions, PromptOptions
from mindgen.batch.settings import BatchSettings, read_batch_settings
from mindgen.batch.verl_keys import GENERATION_DEFAULTS, SERVER_DEFAULTS, VERL_KEYS
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError, UsageError
from mindgen.loop.model_files import ModelFiles
from mindgen.sampling_params import SamplingParams

FILES = ("data.path=in.parquet", "data.output_path=out.parquet")
TARGETS = {row.name: row.target for row in VERL_KEYS}
HONOURED = {row.name for row in VERL_KEYS if row.effect == "honoured"}


def job(*words: str, path=None, flags=None) -> BatchConfig:
    settings, _ = read_batch_settings(path, words, flags or {})
    files = ModelFiles(settings.model.path, settings.adapter_paths, settings.load_checkpoint)
    return settings.job(files, settings.engine)


def notes(*words: str) -> list[str]:
    return read_batch_settings(None, words, {}).notes


def refusal(*words: str) -> str:
    with pytest.raises(UsageError) as raised:
        job(*words)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def typed(text: str) -> list[str]:
    """The words of a command whose lines have comments behind their backslashes."""
    lines = [line.partition(" #")[0].strip().removesuffix("\\") for line in text.strip().splitlines()]
    words = shlex.split(" ".join(lines))
    assert words[:3] == ["python", "-m", "mindgen.batch"]
    return words[3:]


def expected(**changes) -> BatchConfig:
    """A job of the document's command line, but for these changes."""
    sampling = SamplingParams(temperature=1.0, top_k=50, top_p=0.7, max_tokens=512)
    sampling = replace(sampling, **changes.pop("sampling", {}))
    model = ModelChoice(path=changes.pop("model", "demo"), dtype="bfloat16")
    job = {"input": "in.parquet", "output": "out.parquet", "n_samples": 5, "model": model, "sampling": sampling}
    return BatchConfig(**job | changes)


EXAMPLES = {
    "1: one machine": (
        """
        python -m mindgen.batch \\
            trainer.nnodes=1 \\
            trainer.n_gpus_per_node=8 \\
            data.path=/home/me/data/gsm8k/test.parquet \\
            data.prompt_key=prompt \\
            data.n_samples=1 \\
            data.output_path=/home/me/data/gsm8k/model_gen_test.parquet \\
            model.path=Qwen/Qwen2-7B-Instruct \\
            rollout.temperature=1.0 \\
            rollout.top_p=0.7 \\
            rollout.prompt_length=2048 \\
            rollout.response_length=1024 \\
            rollout.tensor_model_parallel_size=2 \\
            rollout.gpu_memory_utilization=0.8
        """,
        expected(
            input="/home/me/data/gsm8k/test.parquet", output="/home/me/data/gsm8k/model_gen_test.parquet", n_samples=1,
            model="Qwen/Qwen2-7B-Instruct", prompts=PromptOptions(max_length=2048), sampling={"max_tokens": 1024},
            engine=EngineConfig(tensor_parallel_size=2, data_parallel_size=4, memory_utilization=0.8),
        ),
    ),
    "2: several samples": (
        """
        python -m mindgen.batch \\
            data.n_samples=8 \\                      # 每个提示生成 8 个响应
            rollout.temperature=1.0 \\               # 使用较高温度增加多样性
            rollout.top_p=0.9 \\                     # 更宽松的 top-p
            data.path=in.parquet data.output_path=out.parquet
        """,
        expected(n_samples=8, sampling={"top_p": 0.9}),
    ),
    "3: deterministic": (
        """
        python -m mindgen.batch \\
            data.n_samples=1 \\
            rollout.temperature=0.0 \\               # 贪心解码
            rollout.top_k=-1 \\
            rollout.top_p=1.0 \\
            data.path=in.parquet data.output_path=out.parquet
        """,
        expected(n_samples=1, sampling={"temperature": 0.0, "top_k": -1, "top_p": 1.0}),
    ),
    "4: several machines": (
        """
        python -m mindgen.batch \\
            trainer.nnodes=2 \\
            trainer.n_gpus_per_node=8 \\
            data.batch_size=256 \\                   # 增加批次大小
            rollout.tensor_model_parallel_size=4 \\  # 使用 TP=4
            rollout.gpu_memory_utilization=0.9 \\    # 更高的内存利用率
            data.path=in.parquet data.output_path=out.parquet
        """,
        expected(
            batch_size=256, runner="ray",
            engine=EngineConfig(tensor_parallel_size=4, data_parallel_size=4, memory_utilization=0.9),
        ),
    ),
    "5: a large model": (
        """
        python -m mindgen.batch \\
            trainer.nnodes=2 \\
            trainer.n_gpus_per_node=8 \\
            model.path=meta-llama/Llama-3-70B-Instruct \\
            rollout.tensor_model_parallel_size=16 \\  # 使用所有 16 GPU 进行 TP
            rollout.gpu_memory_utilization=0.95 \\    # 最大化内存使用
            rollout.prompt_length=4096 \\             # 支持更长的上下文
            rollout.response_length=2048 \\
            rollout.dtype=bfloat16 \\
            rollout.enforce_eager=True \\
            data.path=in.parquet data.output_path=out.parquet
        """,
        expected(
            model="meta-llama/Llama-3-70B-Instruct", prompts=PromptOptions(max_length=4096), runner="ray",
            sampling={"max_tokens": 2048}, engine=EngineConfig(tensor_parallel_size=16, memory_utilization=0.95),
        ),
    ),
    "6: another engine's name": (
        """
        python -m mindgen.batch \\
            rollout.name=hf \\                       # 使用 HF 后端
            rollout.do_sample=True \\                # 启用采样
            rollout.top_k=0 \\                       # HF 的 top-k 格式
            data.path=in.parquet data.output_path=out.parquet
        """,
        expected(sampling={"top_k": 0}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_document_as_typed(name):
    command, meant = EXAMPLES[name]
    assert job(*typed(command)) == meant


def test_all_settings_of_the_document():
    """Its sections of settings, with the comments behind them."""
    text = """
    python -m mindgen.batch trainer.nnodes=1 trainer.n_gpus_per_node=8 trainer.device=cuda \\  # 设备类型
        data.path=in.parquet data.prompt_key=question data.n_samples=1 data.output_path=out.parquet data.batch_size=128 \\
        model.path=demo +model.trust_remote_code=True model.external_lib=null \\  # 外部库
        rollout.name=vllm rollout.mode=async rollout.temperature=1.0 rollout.top_k=50 rollout.top_p=0.7 \\
        rollout.prompt_length=2048 rollout.response_length=1024 rollout.tensor_model_parallel_size=2 \\
        rollout.gpu_memory_utilization=0.8 rollout.dtype=bfloat16 rollout.ignore_eos=False rollout.enforce_eager=True \\
        rollout.max_num_batched_tokens=8192 rollout.max_num_seqs=1024 rollout.enable_chunked_prefill=True
    """
    found = job(*typed(text))
    engine = EngineConfig(
        tensor_parallel_size=2, data_parallel_size=4, memory_utilization=0.8, max_num_batched_tokens=8192,
        max_num_seqs=1024,
    )  # fmt: skip
    assert found == expected(
        columns=replace(BatchConfig.__dataclass_fields__["columns"].default, prompt="question"), n_samples=1,
        batch_size=128, prompts=PromptOptions(max_length=2048), sampling={"max_tokens": 1024}, engine=engine,
    )  # fmt: skip
    assert notes(*typed(text)) == [
        "of no effect here, and ignored: model.trust_remote_code, rollout.name, rollout.mode, rollout.enforce_eager",
        "trainer.device cuda: there is no CUDA; the NPUs or the CPU of this machine are used",
    ]


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


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("rollout.temprature=1", "rollout.temperature"),
        ("rolout.temperature=1", "rollout.temperature"),
        ("+rollout.tmeperature=1", "rollout.temperature"),
        ("++data.promptkey=x", "data.prompt_key"),
        ("~data.nsamples", "data.n_samples"),
        ("trainer.n_gpu_per_node=1", "trainer.n_gpus_per_node"),
        ("model.paths=x", "model.path"),
        ("actor_rollout_ref.rollout.topk=1", "actor_rollout_ref.rollout.top_k"),
        ("temperature=1", "rollout.temperature"),
        ("outputs.from=responses", "outputs.form"),
        ("engine.max_num_seq=1", "engine.max_num_seqs"),
        ("batchsize=1", "batch_size"),
        ("rollout={temperature: 1, topp: 0.5}", "rollout.top_p"),
    ],
)
def test_a_key_that_is_unknown_is_refused_with_the_nearest(word, nearest):
    assert refusal(*FILES, word).endswith(f"did you mean {nearest!r}?")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rollout=5"], "rollout must hold keys and values, not 5"),
        (["data.train_files=x"], "data.path and data.train_files say the same, and differ: keep one of them"),
        (["trainer.n_gpus_per_node=1", "trainer.n_npus_per_node=2"], "say the same, and differ"),
        (["rollout.top_p=0.5", "generation.top_p=0.6"], "say the same, and differ"),
        (
            ["trainer.n_gpus_per_node=8", "rollout.tensor_model_parallel_size=3"],
            "8 device(s), which is no multiple of 3",
        ),
        (["trainer.n_gpus_per_node=0"], "trainer.n_gpus_per_node must be an integer of at least 1, not 0"),
        (["rollout.temperature=0"], "n_samples must be 1 at temperature 0"),
        (["rollout.top_p=2"], "top_p must be above 0 and at most 1, not 2.0"),
        (["engine.tensor_parallel_size=0", "trainer.nnodes=1"], "tensor_parallel_size must be at least 1, not 0"),
        (["engine.tensor_parallel_size=x", "trainer.nnodes=1"], "tensor_parallel_size must be a valid integer"),
        (["rollout.response_length=0"], "rollout.response_length must be an integer of at least 1, not 0"),
        (["rollout.max_num_seqs=0"], "rollout.max_num_seqs must be an integer of at least 1, not 0"),
        (["generation.max_length=9"], "generation.max_length counts the prompt too"),
        (["generation.n=2"], "generation.n is n_samples of a job"),
        (["generation.seed=2"], "generation.seed is seed of a job"),
        (["~rollout.top_k=7", "~rollout.top_p=1"], "~rollout.top_k=7: no value was given"),
        (["rollout.top_k=5", "~rollout.top_k=7"], "~rollout.top_k=7: it has 5"),
        (["outputs.form=lists"], "outputs.form must be 'generated_text' or 'responses', not 'lists'"),
        (["model.lora_adapter_path=x", "adapters={A: y}"], "both name adapters"),
        (["engine.gpu_memory_utilization=0.5", "rollout.gpu_memory_utilization=0.4"], "give one"),
        (["engine.nnodes=2", "engine.master_addr=host", "engine.node_rank=2"], "node_rank must be 0 to 1"),
    ],
)
def test_what_contradicts_or_is_out_of_range(words, message):
    assert message in refusal(*FILES, *words)


def test_input_and_output_are_needed():
    assert refusal("rollout.top_k=1").startswith("no input: give data.path=FILE")
    assert refusal("data.path=a.parquet").startswith("no output: give data.output_path=FILE")


def test_defaults_are_those_of_the_form():
    """veRL's where its keys are used; else those of `mindgen generate`."""
    assert job(*FILES) == expected()
    own = job("input=in.parquet", "output=out.parquet")
    assert own == BatchConfig(
        input="in.parquet", output="out.parquet", sampling=SamplingParams(temperature=0.0, max_tokens=64)
    )
    server = job("data.train_files=in.parquet", "+data.output_path=out.parquet")
    assert server == expected(n_samples=1, sampling={"top_k": -1, "top_p": 1.0})
    assert {*GENERATION_DEFAULTS, *SERVER_DEFAULTS} <= HONOURED


def test_null_and_a_removed_key_are_without_the_default():
    for word in ("rollout.top_k=null", "~rollout.top_k"):
        assert job(*FILES, word) == expected(sampling={"top_k": 0})
    without = job(*FILES, "data.n_samples=1", "~rollout")
    assert without.sampling == SamplingParams(temperature=0.0, max_tokens=64) and without.model.dtype == "auto"
    assert job(*FILES, "outputs.form=responses", "~outputs.form") == expected()
    assert job(*FILES, "columns.adapter_id=null").columns.adapter_id is None


def test_the_later_word_counts():
    assert job(*FILES, "rollout.top_k=5", "++rollout.top_k=6").sampling.top_k == 6


def test_the_keys_of_the_generation_server():
    found = job(
        "trainer.nnodes=1", "trainer.n_gpus_per_node=4", "actor_rollout_ref.model.path=demo",
        "actor_rollout_ref.model.trust_remote_code=True", "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.load_format=auto", "actor_rollout_ref.rollout.temperature=0.6",
        "actor_rollout_ref.rollout.top_k=20", "actor_rollout_ref.rollout.top_p=0.95",
        "actor_rollout_ref.rollout.prompt_length=2048", "actor_rollout_ref.rollout.response_length=100",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=2", "actor_rollout_ref.rollout.n=4",
        "data.train_files=['in.parquet']", "data.prompt_key=prompt", "+data.output_path=out.parquet",
        "+data.apply_chat_template_kwargs.enable_thinking=False", "actor_rollout_ref.actor.strategy=fsdp",
    )  # fmt: skip
    assert found == expected(
        n_samples=4, sampling={"temperature": 0.6, "top_k": 20, "top_p": 0.95, "max_tokens": 100},
        engine=EngineConfig(tensor_parallel_size=2, data_parallel_size=2),
        prompts=PromptOptions(max_length=2048, template_variables={"enable_thinking": False}),
    )  # fmt: skip
    assert job("data.train_files=in.parquet", "data.output_path=out.parquet", "data.max_response_length=7",
               "actor_rollout_ref.rollout.response_length=9").sampling.max_tokens == 9  # fmt: skip


def test_devices_are_replicas_of_so_many_ranks():
    def sizes(*words: str) -> tuple:
        engine = (found := job(*FILES, *words)).engine
        return engine.tensor_parallel_size, engine.data_parallel_size, engine.nnodes, found.runner

    assert sizes() == (1, 1, 1, "local")
    assert sizes("rollout.tensor_model_parallel_size=2") == (2, 1, 1, "local")
    assert sizes("trainer.n_npus_per_node=8", "rollout.tensor_model_parallel_size=8") == (8, 1, 1, "local")
    assert sizes("trainer.nnodes=2") == (1, 2, 1, "ray")
    assert sizes("trainer.nnodes=2", "rollout.tensor_model_parallel_size=4") == (4, 1, 1, "ray")
    assert sizes("trainer.nnodes=2", "trainer.n_gpus_per_node=8", "engine.master_addr=host") == (1, 16, 2, "local")
    assert sizes("trainer.nnodes=1", "trainer.n_gpus_per_node=4", "engine.data_parallel_size=2") == (1, 2, 1, "local")


OWN = """
input: [a.jsonl, b.jsonl]
output: out.jsonl
adapters: {A1: one, A2: two}
adapter_id: A1
columns: {prompt: question, sampling: null}
prompts: {chat: true, max_length: 100, truncation: left}
outputs: {form: responses, prefix: new_, token_ids: true, overwrite: true}
n_samples: 2
seed: 7
batch_size: 5
part_rows: 10
fail_fast: true
retry_failed: true
model: {path: demo, dtype: float32}
engine: {max_num_seqs: 4, gpu_memory_utilization: 0.5}
generation: {temperature: 0.5, max_tokens: 9, logit_bias: {5: 1.5}}
"""
VERL = """
trainer: {nnodes: 1, n_gpus_per_node: 2, device: cuda}
data: {path: in.parquet, prompt_key: prompt, n_samples: 3, output_path: out.parquet, batch_size: 128}
model: {path: demo, external_lib: null}
rollout: {name: vllm, mode: sync, temperature: 1.0, top_k: 50, top_p: 0.7, prompt_length: 1536, response_length: 512,
  dtype: bfloat16, tensor_model_parallel_size: 1, load_format: auto, log_prob_micro_batch_size: null, n: 1}
actor: {strategy: fsdp, model: "${model}"}
ray_init: {num_cpus: null}
outputs: {form: responses}
"""


def test_a_file_in_our_own_sections_says_everything(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(OWN)
    found = job(path=path)
    assert found == BatchConfig(
        input=["a.jsonl", "b.jsonl"], output="out.jsonl", adapter_id="A1", n_samples=2, seed=7, batch_size=5,
        part_rows=10, fail_fast=True, retry_failed=True,
        model=ModelChoice(path="demo", dtype="float32", adapters={"A1": "one", "A2": "two"}),
        columns=replace(BatchConfig.__dataclass_fields__["columns"].default, prompt="question", sampling=None),
        prompts=PromptOptions(chat=True, max_length=100, truncation="left"),
        outputs=OutputOptions(form="responses", prefix="new_", token_ids=True, overwrite=True),
        engine=EngineConfig(max_num_seqs=4, memory_utilization=0.5),
        sampling=SamplingParams(temperature=0.5, max_tokens=9, logit_bias={5: 1.5}),
    )  # fmt: skip
    assert job("columns.adapter_id=null", path=path).columns.adapter_id is None
    assert job("generation.top_k=3", path=path, flags={"generation.top_k": 4}).sampling.top_k == 4


def test_a_file_in_verls_sections(tmp_path):
    path = tmp_path / "generation.yaml"
    path.write_text(VERL)
    meant = expected(
        n_samples=3, batch_size=128, prompts=PromptOptions(max_length=1536), engine=EngineConfig(data_parallel_size=2),
        outputs=OutputOptions(form="responses"),
    )  # fmt: skip
    assert job(path=path) == meant
    assert job("rollout.top_k=-1", path=path) == replace(meant, sampling=replace(meant.sampling, top_k=-1))
    assert read_batch_settings(path, [], {}).notes[0] == (
        "of no effect here, and ignored: rollout.name, rollout.mode, rollout.n, actor, ray_init"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rollout: {temprature: 1}", "job.yaml: unknown key 'rollout.temprature'; did you mean 'rollout.temperature'?"),
        ("data: {path: '${oc.env:HOME}/x'}", "data.path: ${oc.env:HOME}/x is not resolved"),
        ("data: [1]", "data must hold keys and values, not [1]"),
        ("- a", "must hold keys and values, not list"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_file_with_mistakes(tmp_path, text, message):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_batch_settings(path, [], {})
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_the_settings_of_a_job_are_its_fields():
    settings = BatchSettings(input="a", output="b")
    found = settings.job(ModelFiles("demo", None, None), settings.engine)
    assert replace(found, sampling=SamplingParams()) == BatchConfig(input="a", output="b")
    assert {field.name for field in fields(BatchConfig)} - set(BatchSettings.model_fields) == {"sampling"}


def test_folders_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = job("data.path=~/in.parquet", "data.output_path=~/out.parquet", "model.path=~/models/x")
    assert (found.input, found.output, found.model.path) == (
        "/home/me/in.parquet", "/home/me/out.parquet", "/home/me/models/x"
    )  # fmt: skip
