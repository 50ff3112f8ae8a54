"""A job's configuration: files in our own sections and in veRL's."""

from dataclasses import fields, replace

import pytest
from batch_jobs import expected, job

from mindgen.batch.config import BatchConfig, ModelChoice, OutputOptions, PromptOptions
from mindgen.batch.settings import BatchSettings, read_batch_settings
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.loop.model_files import ModelFiles
from mindgen.sampling_params import SamplingParams

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


def test_folders_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = job("data.path=~/in.parquet", "data.output_path=~/out.parquet", "model.path=~/models/x")
    assert (found.input, found.output, found.model.path) == tuple(
        str(tmp_path / name) for name in ("in.parquet", "out.parquet", "models/x")
    )
