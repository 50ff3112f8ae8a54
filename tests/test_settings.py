"""The configuration file: what it accepts, and how it refuses."""

import json
from pathlib import Path

import pytest
from transformers import GenerationConfig

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError, ModelError
from mindgen.sampling_params import SamplingParams
from mindgen.settings import GenerationSettings, Settings, load_settings, read_generation_file

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(path, {})
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_demo_configuration_is_valid():
    settings = load_settings(DEMO, {})
    assert settings.model.path == "demo"
    assert settings.engine.block_size == 16


def test_command_line_goes_before_the_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("generation: {top_k: 5, top_p: 0.5}\nengine: {block_size: 8}")
    settings = load_settings(path, {"generation.top_k": 9, "model.pet_config.adapter_path": "x"})
    assert (settings.generation.top_k, settings.generation.top_p) == (9, 0.5)
    assert settings.model.pet_config.adapter_path == "x"
    assert settings.engine == EngineConfig(block_size=8)


def test_sampling_has_the_names_of_all_systems(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(
        "generation: {temperature: 0.7, top_k: 5, eval_temperature: 0, min_p: 0.1, stop: [a, b],\n"
        "  logit_bias: {5: 1.5}, new_token_limit: true, max_new_tokens: 9, num_beams: 1,\n"
        "  guided_json: {type: object}, early_stopping: never}"
    )
    params = load_settings(path, {}).generation.sampling_params(64)
    assert params == SamplingParams(
        temperature=0.7, top_k=5, min_p=0.1, stop=["a", "b"], logit_bias={5: 1.5}, max_tokens=9,
        guided_json={"type": "object"}, early_stopping="never",
    )  # fmt: skip
    evaluated = load_settings(path, {"generation.evaluation": True}).generation.sampling_params(64)
    assert evaluated.temperature == 0 and evaluated.top_k == 5
    assert load_settings(None, {}).generation.sampling_params(7) == SamplingParams(temperature=0, max_tokens=7)


def test_memory_utilization_has_two_names(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("engine: {gpu_memory_utilization: 0.25}")
    assert load_settings(path, {}).engine.memory_utilization == 0.25
    assert load_settings(path, {"engine.memory_utilization": "1GiB"}).engine.memory_utilization == "1GiB"


def test_no_file_and_an_empty_file_are_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_settings(None, {}) == load_settings(path, {}) == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "generation: {temprature: 1.0}",
            "unknown key 'generation.temprature'; did you mean 'generation.temperature'?",
        ),
        ("temperature: 1.0", "unknown key 'temperature'; did you mean 'generation.temperature'?"),
        ("engine: {gpu_memory_utilization: 0.5, memory_utilization: 0.5}", "give one of them"),
        ("engine: {gpu_memory_utilisation: 0.5}", "did you mean 'engine.gpu_memory_utilization'?"),
        ("generation: {early_stopping: always}", "generation.early_stopping must be"),
        ("generation: {stop_token_ids: [a]}", "generation.stop_token_ids must be a valid integer, not 'a'"),
        ("engine: {blok_size: 8}", "unknown key 'engine.blok_size'; did you mean 'engine.block_size'?"),
        ("model: {pet_config: {adapterpath: a}}", "did you mean 'model.pet_config.adapter_path'?"),
        ("1: 2", "1"),
        ("generation: {top_k: five}", "generation.top_k must be a valid integer, not 'five'"),
        ("generation: {do_sample: 'maybe'}", "generation.do_sample must be a valid boolean, not 'maybe'"),
        ("generation: {top_k: 1.5}", "generation.top_k must be a valid integer"),
        ("engine: {block_size: 0}", "block_size must be at least 1, not 0"),
        ("engine: {block_size: x}", "engine.block_size must be a valid integer"),
        ("model: {dtype: int8}", "model.dtype must be 'auto', 'bfloat16', 'float16' or 'float32', not 'int8'"),
        ("model: demo", "model must be a valid dictionary"),
        ("predict_data: 5", "predict_data must be a valid string"),
        ("[1, 2]", "must hold keys and values, not list"),
        ("a: [1,", "is not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, text, expected):
    assert expected in refusal(tmp_path, text)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration .*No such file"):
        load_settings(tmp_path / "nowhere.yaml", {})


def defaults(folder: Path, **options: object) -> GenerationSettings:
    (folder / "generation_config.json").write_text(GenerationConfig(**options).to_json_string())
    return read_generation_file(folder)


def test_generation_config_gives_defaults_by_the_same_schema(tmp_path):
    assert read_generation_file(tmp_path) == GenerationSettings()
    sampled = defaults(tmp_path, do_sample=True, temperature=0.6, top_p=0.9, max_length=4096, eos_token_id=[2, 3])
    expected = SamplingParams(temperature=0.6, top_p=0.9, max_tokens=4086)
    assert GenerationSettings().over(sampled).sampling_params(64, prompt_len=10) == expected
    given = load_settings(None, {"generation.top_p": 0.5, "generation.max_tokens": 7}).generation
    assert given.over(sampled).sampling_params(64) == SamplingParams(temperature=0.6, top_p=0.5, max_tokens=7)
    for greedy in ({"do_sample": False}, {"temperature": 0.0}):
        assert GenerationSettings(**greedy).over(sampled).sampling_params(64).is_greedy
    unsaid = defaults(tmp_path, temperature=0.6, top_k=9, repetition_penalty=1.2, stop_strings=["END"])
    params = GenerationSettings().over(unsaid).sampling_params(64)
    assert params == SamplingParams(temperature=0, top_k=9, repetition_penalty=1.2, stop=["END"], max_tokens=64)
    assert GenerationSettings(temperature=0.7).over(unsaid).sampling_params(64).temperature == 0.7


def test_generation_config_that_is_wrong_or_not_served(tmp_path, capsys):
    path = tmp_path / "generation_config.json"
    for content, message in (
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object, not list"),
        ('{"temperature": "hot"}', "temperature must be a valid number, not 'hot'"),
        ('{"do_sample": true, "temperature": -1}', "temperature must be 0"),
        ('{"top_p": 3}', "top_p must be"),
        ('{"stop_strings": [1]}', "stop must be"),
        ('{"num_beams": 0}', "num_beams must be"),
    ):
        path.write_text(content)
        with pytest.raises(ModelError, match=f"{path}.*{message}") as raised:
            read_generation_file(tmp_path)
        assert "\n" not in str(raised.value)
    path.write_text(json.dumps({"no_repeat_ngram_size": 3, "num_beam_groups": 1, "guidance_scale": None}))
    assert read_generation_file(tmp_path) == GenerationSettings()
    assert f"{path}: no_repeat_ngram_size of it is not served, and is ignored" in capsys.readouterr().err
