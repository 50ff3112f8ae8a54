"""The generate command in this process, on one model: sampling options, several outputs, prompts that fail alone."""

import json
from pathlib import Path

import pytest

from mindgen import LLM
from mindgen.cli import flags
from mindgen.cli.main import main
from mindgen.engine.engine_config import EngineConfig
from mindgen.text.chat_template import ChatTemplates

ANSWERS = json.loads((Path(__file__).parents[1] / "data" / "demo_answers.json").read_text(encoding="utf-8"))
A1 = next(answer for answer in ANSWERS if answer["adapter_id"] == "A1")
BASE = next(answer for answer in ANSWERS if answer["adapter_id"] is None)


@pytest.fixture(scope="module")
def llm():
    return LLM("demo")


@pytest.fixture
def run(llm, monkeypatch, capsys):
    """Runs the command; returns its exit code, output and errors. `run.settings` are those of the last run."""

    def generate(*arguments: object) -> tuple[int, str, list[str]]:
        code = main(["generate", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    def load(settings):
        generate.settings = settings
        return llm

    monkeypatch.setattr(flags, "load_llm", load)
    monkeypatch.setattr(llm, "close", lambda *_: None)  # other tests go on with it
    return generate


def records(result: tuple[int, str, list[str]]) -> list[dict]:
    assert result[0] == 0, result[2]
    return [json.loads(line) for line in result[1].splitlines()]


def test_as_typed(run):
    code, out, notes = run("--model", "demo", "--prompt", A1["prompt"], "--adapter_id", "A1", "--temperature", 0)
    assert (code, out) == (0, f"{A1['prompt']}{A1['answer']}\n")
    assert notes[0].startswith("memory: weights") and len(notes) == 3


def test_of_a_message_the_whole_prompt_counts(run, llm, monkeypatch):
    """A max_length is that of the template's text and the output."""
    templates = ChatTemplates({"default": "The user says: {{ messages[0]['content'] }}, two,"}, {}, "here")
    monkeypatch.setattr(llm, "_templates", templates)
    num_tokens = len(llm.encode("The user says: one, two,", add_special_tokens=False))
    flags = ("--prompt", "one", "--chat", "--max_length", num_tokens + 3, "--ignore_eos", "--output", "jsonl")
    (record,) = records(run(*flags))
    assert (record["num_prompt_tokens"], record["num_tokens"]) == (num_tokens, 3)


def test_flags_of_a_training_checkpoint_go_with_one(run):
    code, _, notes = run("--prompt", "one", "--device", "cpu", "--vocab-size", 800, "--stop-on-eos")
    assert code != 0
    assert "--vocab_size, --stop_on_eos, --device: only with --checkpoint_path, and there is none" in notes[-1]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("text", f"{A1['prompt']}{A1['answer']}\n{BASE['prompt']}{BASE['answer']}\n"),
        ("jsonl", None),
    ],
)
def test_a_failing_prompt_fails_alone(run, output, expected):
    prompts = ("word " * 3000, A1["prompt"], "", BASE["prompt"])
    code, out, notes = run("--prompt", *prompts, "--adapter_id", "A1", "A1", "base", "base", "--output", output)
    assert code == 1
    errors = [note for note in notes if note.startswith("mindgen: error: ")]
    assert [error.split(":")[2] for error in errors] == [" prompt 0", " prompt 2"]
    assert "the context of 512" in errors[0] and "the prompt is empty" in errors[1]
    if expected is not None:
        assert out == expected
        return
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert ["error" in line for line in lines] == [True, False, True, False]
    assert lines[2] == {"index": 2, "prompt": "", "adapter_id": None, "error": errors[1].partition("prompt 2: ")[2]}
    assert (lines[1]["text"], lines[3]["text"]) == (A1["answer"], BASE["answer"])


def test_bytes_that_are_no_text_fail_alone(run, tmp_path):
    """As Python gives them from a command line; the file is UTF-8 and JSON all the same."""
    path = tmp_path / "out.jsonl"
    code, _, notes = run("--prompt", A1["prompt"], "a\udcffb", "--adapter_id", "A1", "--output", path)
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert code == 1 and first["text"] == A1["answer"]
    assert second["prompt"] == "a\udcffb" and "half a surrogate pair" in second["error"]
    assert any("prompt 1" in note and "half a surrogate pair" in note for note in notes)


def test_the_exit_code_is_the_first_failure_s(run):
    assert run("--prompt", A1["prompt"], A1["prompt"], "--adapter_id", "A1", "A9")[0] == 2
    code, out, notes = run("--prompt", "", "x", "--adapter_id", "base", "A9", "--output", "jsonl")
    assert (code, out, len(notes)) == (2, "", 1)  # before the model is loaded
    code, out, notes = run("--prompt", "", "", "--adapter_id", "base", "A1", "--output", "jsonl")
    assert (code, out, len(notes)) == (1, "", 3)  # the memory plan, and why each failed
    code, out, notes = run("--prompt", "I", "I love", "--max_length", 3, "--debug")
    assert code == 1 and out.startswith("I") and "max_length 3 leaves nothing to generate" in "\n".join(notes)


def test_several_outputs_are_told_apart(run):
    options = ("--prompt", "I love", "An", "--n", 3, "--temperature", 2, "--seed", 1, "--max_tokens", 6)
    code, out, notes = run(*options)
    first, second = records(run(*options, "--output", "jsonl"))
    num_tokens = sum(len(each["token_ids"]) for record in (first, second) for each in record["outputs"])
    assert code == 0 and f"{num_tokens} tokens generated" in notes[1]
    assert out == "".join(
        record["prompt"] + "".join(f"\n[{each['index']}] {each['text']}" for each in record["outputs"]) + "\n"
        for record in (first, second)
    )
    assert len({each["text"] for each in first["outputs"]}) == 3
    assert {**first, **first["outputs"][0], "index": 0} == first


def test_log_probabilities(run):
    options = ("--logprobs", 2, "--prompt_logprobs", 0, "--max_tokens", 3, "--output", "jsonl")
    (record,) = records(run("--prompt", "I love", *options))
    assert len(record["logprobs"]) == 3 and record["cumulative_logprob"] < 0
    for token_id, position in zip(record["token_ids"], record["logprobs"], strict=True):
        assert position[str(token_id)]["rank"] == 1 and len(position) == 2
        assert all(each["logprob"] <= 0 and isinstance(each["decoded_token"], str) for each in position.values())
    assert record["prompt_logprobs"][0] is None and len(record["prompt_logprobs"]) == record["num_prompt_tokens"]
    (record,) = records(run("--prompt", "I love", "--output", "jsonl", "--max_tokens", 3))
    assert {"logprobs", "prompt_logprobs", "cumulative_logprob", "outputs"}.isdisjoint(record)


def test_guided_output(run, tmp_path):
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    for typed in (json.dumps(schema), f"@{tmp_path / 'schema.json'}"):
        (record,) = records(run("--prompt", "I love", "--guided_json", typed, "--output", "jsonl"))
        assert json.loads(record["text"])["a"] in ("x", "y")
    (record,) = records(run("--prompt", "I love", "--guided_choice", "yes", "no", "--output", "jsonl"))
    assert record["text"] in ("yes", "no")


def test_names_of_other_systems(run):
    json_lines = ("--prompt", A1["prompt"], "--adapter_id", "A1", "--output", "jsonl")
    middle = A1["answer"][4]
    (record,) = records(run(*json_lines, "--stop_token_list", f"nothing;{middle}"))
    assert record["text"] == A1["answer"].partition(middle)[0] and record["stop_reason"] == middle
    (record,) = records(run(*json_lines, "--new_token_limit", 2))
    assert record["num_tokens"] == 2
    (record,) = records(run(*json_lines, "--num_beams", 2, "--num_return_sequences", 2, "--max_new_tokens", 4))
    assert len(record["outputs"]) == 2
    sampled = ("--temperature", 3, "--eval_temperature", 0, "--seed", 1)
    (evaluated,) = records(run(*json_lines, *sampled, "--evaluation"))
    (trained,) = records(run(*json_lines, *sampled))
    assert evaluated["text"] == A1["answer"] != trained["text"]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ((), 0.0),
        (("--temperature", 0.7), 0.7),
        (("--temperature", 0), 0.0),
        (("--do_sample",), 0.5),
        (("--temperature", 0.7, "--do_sample", "False"), 0.0),
    ],
)
def test_a_temperature_samples(run, tmp_path, flag, expected):
    (tmp_path / "settings.yaml").write_text("generation: {do_sample: false, temperature: 0.5, max_length: 40}")
    assert run("--config", tmp_path / "settings.yaml", "--prompt", "I love", "--max_tokens", 2, *flag)[0] == 0
    params = run.settings.generation.sampling_params(64)
    assert (params.temperature, params.max_tokens) == (expected, 2)


def test_engine_limits(run):
    limits = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "block_size": 8, "num_blocks": 30, "swap_space": 0.5,
              "max_model_len": 200, "max_waiting": 9, "enable_chunked_prefill": False}  # fmt: skip
    typed = [part for name, value in limits.items() for part in (f"--{name}", value)]
    run("--prompt", "I", *typed, "--enable_prefix_caching", "false", "--gpu_memory_utilization", 0.25)
    assert run.settings.engine == EngineConfig(**limits, enable_prefix_caching=False, memory_utilization=0.25)
    run("--prompt", "I", "--memory_utilization", "2GiB")
    assert run.settings.engine.memory_utilization == "2GiB"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--top_k", "five"), 2, "--top_k cannot be 'five': expected an integer"),
        (("--executor", "cuda"), 2, "--executor cannot be 'cuda': expected 'mindgen' or"),
        (("--guided_json", "@nowhere"), 2, "--guided_json: cannot read nowhere"),
        (("--guided_json", "{}", "--guided_regex", "a"), 1, "at most one of guided_json"),
        (("--n", "2"), 1, "n must be 1 at temperature 0"),
        (("--block_size", "0"), 2, "block_size must be at least 1"),
    ],
)
def test_mistakes_are_one_line(run, arguments, code, message):
    got, out, notes = run("--prompt", "I", *arguments)
    assert (got, out, len(notes)) == (code, "", 1)
    assert notes[0].startswith("mindgen: error: ") and message in notes[0]


def test_both_names_of_the_memory_utilization(run, capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--memory_utilization", "0.5", "--gpu_memory_utilization", "0.5"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    for command, hidden in (("generate", ()), ("chat", ("max_length", "seq_length", "min_length"))):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        shown = {name for name in flags.sampling_options() if f"--{name} " in text}
        assert shown == flags.sampling_options().keys() - set(hidden)
        assert "--gpu_memory_utilization" in text and "--swap_space" in text
