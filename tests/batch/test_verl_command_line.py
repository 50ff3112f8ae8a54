"""veRL's command line as typed."""

import shlex
from dataclasses import replace

import pytest
from batch_jobs import FILES, expected, job, notes, refusal

from mindgen.batch.config import BatchConfig, PromptOptions
from mindgen.batch.verl_keys import GENERATION_DEFAULTS, SERVER_DEFAULTS, VERL_KEYS
from mindgen.engine.engine_config import EngineConfig
from mindgen.sampling_params import SamplingParams


def typed(text: str) -> list[str]:
    """The words of a command whose lines have comments behind their backslashes."""
    lines = [line.partition(" #")[0].strip().removesuffix("\\") for line in text.strip().splitlines()]
    words = shlex.split(" ".join(lines))
    assert words[:3] == ["python", "-m", "mindgen.batch"]
    return words[3:]


EXAMPLES = {
    "1: one machine": (
        """
        python -m mindgen.batch \\
            trainer.nnodes=1 \\
            trainer.n_gpus_per_node=8 \\
            data.path=data/gsm8k/test.parquet \\
            data.prompt_key=prompt \\
            data.n_samples=1 \\
            data.output_path=data/gsm8k/model_gen_test.parquet \\
            model.path=Qwen/Qwen2-7B-Instruct \\
            rollout.temperature=1.0 \\
            rollout.top_p=0.7 \\
            rollout.prompt_length=2048 \\
            rollout.response_length=1024 \\
            rollout.tensor_model_parallel_size=2 \\
            rollout.gpu_memory_utilization=0.8
        """,
        expected(
            input="data/gsm8k/test.parquet", output="data/gsm8k/model_gen_test.parquet", n_samples=1,
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
        data.path=in.parquet data.prompt_key=question data.n_samples=1 data.output_path=out.parquet \\
        data.batch_size=128 model.path=demo +model.trust_remote_code=True model.external_lib=null \\  # 外部库
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
    honoured = {row.name for row in VERL_KEYS if row.effect == "honoured"}
    assert {*GENERATION_DEFAULTS, *SERVER_DEFAULTS} <= honoured


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
