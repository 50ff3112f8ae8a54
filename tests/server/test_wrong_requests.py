"""What is wrong is said in OpenAI's form: status, type, param, code."""

import json
import socket
import subprocess

import openai
import pytest
from server_process import ROOT, command

from mindgen.cli.main import main
from mindgen.errors import ConfigError
from mindgen.server.observe.tracing import check_tracing

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GOOD = {"model": "demo", "prompt": "One,", "max_tokens": 1}
GOOD_CHAT = {"model": "demo", "messages": [{"role": "user", "content": "One,"}], "max_tokens": 1}
WRONG = "invalid_request_error"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

# Path, what is added to a good request (None takes a field away), and the answer.
TABLE = [
    (COMPLETIONS, {"model": "nobody"}, (404, WRONG, None, "model_not_found")),
    (CHAT, {"model": "nobody"}, (404, WRONG, None, "model_not_found")),
    (COMPLETIONS, {"adapter_id": "nobody"}, (404, WRONG, None, "model_not_found")),
    (COMPLETIONS, {"model": "A1", "adapter_id": "A2"}, (400, WRONG, "adapter_id", None)),
    (COMPLETIONS, {"model": "A1", "adapter_id": "base"}, (400, WRONG, "adapter_id", None)),
    (COMPLETIONS, {"prompt": None}, (400, WRONG, "prompt", None)),
    (COMPLETIONS, {"prompt": ""}, (400, WRONG, "prompt", None)),
    (COMPLETIONS, {"prompt": []}, (400, WRONG, "prompt", None)),
    (COMPLETIONS, {"prompt": 5}, (400, WRONG, "prompt", None)),
    (COMPLETIONS, {"prompt": [800]}, (400, WRONG, "prompt", None)),
    (COMPLETIONS, {"prompt": [-1]}, (400, WRONG, "prompt", None)),
    (COMPLETIONS, {"prompt": "one, " * 600}, (400, WRONG, "prompt", "context_length_exceeded")),
    (COMPLETIONS, {"max_tokens": 5000}, (400, WRONG, "max_tokens", "context_length_exceeded")),
    (
        CHAT,
        {"max_completion_tokens": 600, "max_tokens": None},
        (400, WRONG, "max_completion_tokens", "context_length_exceeded"),
    ),
    (COMPLETIONS, {"max_tokens": 0}, (400, WRONG, "max_tokens", None)),
    (COMPLETIONS, {"max_tokens": -1}, (400, WRONG, "max_tokens", None)),
    (COMPLETIONS, {"max_tokens": "5"}, (400, WRONG, "max_tokens", None)),
    (CHAT, {"max_tokens": 1, "max_completion_tokens": 2}, (400, WRONG, "max_tokens", None)),
    (COMPLETIONS, {"temperature": -1}, (400, WRONG, "temperature", None)),
    (COMPLETIONS, {"top_p": 2}, (400, WRONG, "top_p", None)),
    (COMPLETIONS, {"n": 0}, (400, WRONG, "n", None)),
    (COMPLETIONS, {"n": 3, "best_of": 2, "temperature": 1}, (400, WRONG, "best_of", None)),
    (COMPLETIONS, {"logprobs": 21}, (400, WRONG, "logprobs", None)),
    (COMPLETIONS, {"stop": 5}, (400, WRONG, "stop", None)),
    (COMPLETIONS, {"stop": [""]}, (400, WRONG, "stop", None)),
    (COMPLETIONS, {"seed": -5}, (400, WRONG, "seed", None)),
    (COMPLETIONS, {"logit_bias": {"x": 1}}, (400, WRONG, "logit_bias", None)),
    (COMPLETIONS, {"logit_bias": {"900": 1}}, (400, WRONG, "logit_bias", None)),
    (COMPLETIONS, {"stream_options": {"include_usage": True}}, (400, WRONG, "stream_options", None)),
    (COMPLETIONS, {"guided_json": "{", "stream": True}, (400, WRONG, "guided_json", None)),
    (COMPLETIONS, {"guided_regex": "("}, (400, WRONG, "guided_regex", None)),
    (COMPLETIONS, {"guided_regex": "a", "guided_choice": ["a"]}, (400, WRONG, "guided_choice", None)),
    (CHAT, {"response_format": {"type": "json_schema"}}, (400, WRONG, "response_format", None)),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wrong"}}}},
        (400, WRONG, "response_format", None),
    ),
    (COMPLETIONS, {"no_such_field": 1}, (400, WRONG, "no_such_field", "unknown_parameter")),
    (COMPLETIONS, {"suffix": "end"}, (400, WRONG, "suffix", None)),
    (CHAT, {"messages": []}, (400, WRONG, "messages", None)),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        (400, WRONG, "messages", None),
    ),
    (CHAT, {"top_logprobs": 2}, (400, WRONG, "top_logprobs", None)),
    (CHAT, {"tools": [TOOL]}, (400, WRONG, "tools", None)),
    (CHAT, {"tool_choice": "required"}, (400, WRONG, "tool_choice", None)),
    (CHAT, {"functions": [{"name": "f"}]}, (400, WRONG, "functions", "unknown_parameter")),
    ("/v1/embeddings", {}, (404, WRONG, None, "not_supported")),
    ("/v1/nothing", {}, (404, WRONG, None, "unknown_url")),
    ("/v1/load_lora_adapter", {}, (403, "permission_error", None, "admin_disabled")),
    ("/detokenize", {"tokens": [800]}, (400, WRONG, "tokens", None)),
    ("/tokenize", {}, (400, WRONG, "prompt", None)),
]  # fmt: skip


def checked(response) -> tuple:
    """Status, type, param, code of an answer that has nothing but an error, and a message."""
    (error,) = response.json().values()
    assert error.keys() == {"message", "type", "param", "code"} and error["message"], response.text
    assert "\n" not in error["message"] and "Traceback" not in response.text
    return response.status_code, error["type"], error["param"], error["code"]


@pytest.mark.parametrize(("path", "changes", "expected"), TABLE, ids=lambda value: json.dumps(value)[:60])
def test_table(server, path, changes, expected):
    good = {COMPLETIONS: GOOD, CHAT: GOOD_CHAT}.get(path, {})
    if path == "/v1/load_lora_adapter":
        good = {"lora_name": "x", "lora_path": "x"}
    body = {name: value for name, value in (good | changes).items() if value is not None}
    assert checked(server.http().post(path, json=body)) == expected


@pytest.mark.parametrize(
    ("prompt", "came"), [([], "[]"), (["a"] * 4097, "a list of 4097"), (["a", [1]], "['a', [1]]"), (5, "5")], ids=str
)
def test_a_prompt_is_refused_by_its_whole_rule(server, prompt, came):
    rule = "expected a text, token ids, or a list of 1 to 4096 that are all texts or all token ids"
    for path, name, more in ((COMPLETIONS, "prompt", {}), ("/v1/score", "text_1", {"text_2": "x"})):
        error = server.http().post(path, json={name: prompt} | more).json()["error"]
        assert (error["message"], error["param"]) == (f"{name}: {rule}, not {came}", name)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"prompt": "\\ud800"}', b"[" * 100_000, b"1" * 5000])
def test_bodies_that_are_none(server, body):
    response = server.http().post(COMPLETIONS, content=body, headers={"Content-Type": "application/json"})
    assert checked(response)[:2] == (400, WRONG)


def test_methods(server):
    assert checked(server.http().get(COMPLETIONS))[0] == 405
    assert checked(server.http().get("/v1/models/a/b/c"))[3] == "model_not_found"


def test_null_is_as_good_as_absent(server):
    nulls = dict.fromkeys(("stop", "logprobs", "suffix", "best_of", "stream_options", "logit_bias", "echo", "n"))
    assert server.http().post(COMPLETIONS, json=GOOD | nulls).status_code == 200


def test_the_client_raises_its_own_classes(client):
    with pytest.raises(openai.NotFoundError) as found:
        client.completions.create(**(GOOD | {"model": "demos"}))
    assert found.value.code == "model_not_found" and "did you mean demo?" in str(found.value)
    with pytest.raises(openai.BadRequestError) as found:
        list(client.completions.create(**GOOD, stream=True, temperature=-1))
    assert found.value.param == "temperature"


def test_one_requests_failure_is_its_own(server, client):
    stream = client.completions.create(model="A1", prompt="An increasing sequence: one,", max_tokens=40, stream=True)
    first = next(stream)
    for changes in ({"guided_regex": "("}, {"prompt": [800]}, {"prompt": "one, " * 600}):
        assert server.http().post(COMPLETIONS, json=GOOD | changes).status_code == 400
    text = first.choices[0].text + "".join(chunk.choices[0].text for chunk in stream)
    again = client.completions.create(model="A1", prompt="An increasing sequence: one,", max_tokens=40)
    assert text == again.choices[0].text


def test_a_port_that_is_taken_is_told_by_the_command():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(command("--port", str(port)), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and not done.stdout, done.stderr
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr and done.stderr.count("\n") == 1


def test_a_start_that_fails_says_so_in_a_line(tmp_path, capsys):
    def failed_start(*flags: str) -> str:
        code, shown = main(["serve", *flags]), capsys.readouterr()
        assert code == 2 and not shown.out, shown
        (line,) = shown.err.splitlines()
        return line

    keys = tmp_path / "keys"
    assert "cannot read the keys in" in failed_start("--api_key_file", str(keys))
    keys.write_text("# none\n")
    assert "holds no key" in failed_start("--api_key_file", str(keys))
    keys.write_text("secret-key-1 concurrency=many\n")
    assert "line 1: limits are numbers" in failed_start("--admin_key_file", str(keys))
    for option in ("adapter_roots", "adapter_folder"):
        assert f"{option}: no such folder" in failed_start(f"--{option}", str(tmp_path / "nowhere"))
    assert "not 'localhost:4318'" in failed_start("--trace_endpoint", "localhost:4318")
    assert "an adapter is called 'A1', which is the base model's" in failed_start("--served_model_name", "A1")
    assert "did you mean 'server.port'?" in failed_start(
        "--config", str(write(tmp_path / "c.yaml", "server: {prot: 1}"))
    )


@pytest.mark.parametrize("address", ["", "foo", "//host/v1", "http://", "ftp://host", "http://host:x", "http://[x"])
def test_traces_go_to_an_address(address):
    with pytest.raises(ConfigError, match="trace_endpoint must be an address like"):
        check_tracing(address)


def write(path, text):
    path.write_text(text)
    return path
