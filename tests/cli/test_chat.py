"""mindgen chat: the conversation behind it with a model that notes what it is asked, and the command itself."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mindgen.cli.chat_session import ChatOutput, ChatSession
from mindgen.errors import RequestError
from mindgen.outputs import CompletionOutput, RequestMetrics, RequestOutput, TextChunk
from mindgen.sampling_params import SamplingParams

ANSWERS = json.loads((Path(__file__).parents[1] / "data" / "demo_answers.json").read_text(encoding="utf-8"))
PROMPT = "An increasing sequence: one,"


class NotingModel:
    """Answers with its adapter's name and the number of messages, in two chunks."""

    def __init__(self, interrupts: int = 0) -> None:
        self.asked: list[tuple[list[dict[str, str]], SamplingParams, str | None]] = []
        self.interrupts = interrupts
        self.num_closed = 0

    @property
    def adapter_ids(self) -> list[str]:
        return ["A1", "A2"]

    def stream_chat(self, messages, sampling_params, adapter_id):
        if messages[-1]["content"] == "too long":
            raise RequestError("the prompt has 9 tokens")
        if messages[-1]["content"] == "fails":
            yield TextChunk(0, "", RequestOutput.failed(0, "", None, RequestError("no token may come next")))
            return
        self.asked.append((messages, sampling_params, adapter_id))
        try:
            yield TextChunk(0, f"{adapter_id} ", None)
            for _ in range(self.interrupts):
                os.kill(os.getpid(), signal.SIGINT)
            output = RequestOutput(0, "", [], [CompletionOutput(0, "", [])], True, RequestMetrics(0), warnings=["W"])
            yield TextChunk(0, str(len(messages)), output)
        finally:
            self.num_closed += 1


def talk(
    *lines: str, model: NotingModel | None = None, system: str | None = None
) -> tuple[NotingModel, str, str, bool]:
    """The model, its answers, the notes, and whether the conversation goes on."""
    model = model or NotingModel()
    answers, notes = io.StringIO(), io.StringIO()
    session = ChatSession(model, SamplingParams(temperature=0), None, system, ChatOutput(answers, notes))
    goes_on = all([session.handle(line) for line in lines])
    return model, answers.getvalue(), notes.getvalue(), goes_on


def test_history_adapters_and_system():
    lines = [
        "one",
        "/adapter A2\n",
        "two",
        "/system Be brief",
        "",
        "three",
        "/adapter base",
        "/reset",
        "/system",
        "four",
    ]
    model, answers, notes, goes_on = talk(*lines)
    assert goes_on and answers == "None 1\nA2 3\nA2 6\nNone 1\n"
    said = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "None 1"}]
    assert [adapter for _, _, adapter in model.asked] == [None, "A2", "A2", None]
    assert model.asked[1][0] == [*said, {"role": "user", "content": "two"}]
    assert model.asked[2][0][0] == {"role": "system", "content": "Be brief"}
    assert model.asked[3][0] == [{"role": "user", "content": "four"}]
    assert "adapter: A2" in notes and notes.count("warning: W") == 4


def test_adapters_are_listed():
    assert talk("/adapter A1", "/adapters", "/adapter")[2] == "adapter: A1\n  base\n* A1\n  A2\nadapter: A1\n"


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("/adapter A3", "unknown adapter 'A3'; known adapters: base, A1, A2"),
        ("/adaptor", "unknown command /adaptor (did you mean /adapter?)"),
        ("/", "unknown command /"),
        ("/set temprature 1", "unknown parameter 'temprature' (did you mean temperature?)"),
        ("/set temperature hot", "temperature cannot be 'hot'"),
        ("/set temperature -1", "temperature must be 0 (greedy) or more, not -1"),
        ("/set top_k 1.5", "top_k cannot be '1.5'"),
        ("/set ignore_eos maybe", "ignore_eos cannot be 'maybe'"),
        ("/set stop_token_ids a", "stop_token_ids cannot be 'a': expected a list of integers"),
        ("too long", "the prompt has 9 tokens"),
        ("fails", "no token may come next"),
    ],
)
def test_a_mistake_costs_one_line_and_the_conversation_goes_on(line, note):
    model, answers, notes, goes_on = talk("/adapter A2", line, "after")
    assert goes_on and answers == "A2 1\n"
    lines = notes.splitlines()
    assert len(lines) == 3 and note in lines[1] and lines[1].startswith("error: ")
    assert model.asked[0][1] == SamplingParams(temperature=0)


def test_parameters_are_set():
    settings = ["/set temperature 0.2", "/set top_k 5", "/set seed 7", "/set ignore_eos True", "/set stop a b;c",
                '/set logit_bias {"5": 1.5}']  # fmt: skip
    model, _, notes, _ = talk(*settings, "/set", "x", "/set seed none", "x")
    expected = SamplingParams(temperature=0.2, top_k=5, seed=7, ignore_eos=True, stop=["a b", "c"], logit_bias={5: 1.5})
    assert [params for _, params, _ in model.asked] == [expected, replace(expected, seed=None)]
    assert "temperature = 0.2\ntop_k = 5\n" in notes


def test_interrupt_stops_the_answer_only():
    model, answers, notes, goes_on = talk("one", "two", model=NotingModel(interrupts=1))
    assert goes_on and "stopped" in notes and model.num_closed == 2
    assert answers == "None 1\nNone 3\n"
    assert model.asked[1][0][1]["role"] == "assistant"
    with pytest.raises(KeyboardInterrupt):
        talk("one", model=NotingModel(interrupts=2))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("line", ["/quit", "/exit", "/quit\n"])
def test_quit(line):
    assert talk("one", line)[3] is False
    assert "/adapter" in talk("/help")[2]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mindgen", "chat", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(command, env=environment, encoding="utf-8", **pipes)


def expected_answer(adapter_id: str | None) -> str:
    return next(a["answer"] for a in ANSWERS if a["adapter_id"] == adapter_id and a["prompt"] == PROMPT)


def test_a_piped_conversation_switches_adapters():
    lines = [PROMPT, "/adapter A1", PROMPT, "/adapter A9", "/adapter A3", PROMPT, "/adapter base", PROMPT]
    answers, notes = start().communicate("\n".join(lines), timeout=120)  # ended by the end of the input
    assert answers == "".join(f"{expected_answer(name)}\n" for name in (None, "A1", "A3", None)), notes
    assert notes.count("error: ") == 1 and "unknown adapter 'A9'" in notes


def test_ctrl_c_stops_an_answer_of_the_command():
    process = start("--adapter_id", "A1")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"/set ignore_eos true\n/set max_tokens 100000\n{PROMPT}\n")
    process.stdin.flush()
    assert process.stdout.read(10) == expected_answer("A1")[:10]
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    answers, notes = process.communicate(f"/reset\n/set ignore_eos false\n{PROMPT}\n/quit\nunread\n", timeout=120)
    assert process.returncode == 0, notes
    assert "stopped" in notes and answers.splitlines()[-1] == expected_answer("A1")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--adapter_id", "A9"], "unknown adapter_id 'A9'; known adapters: A1, A2, A3"),
        (["--model", "nowhere"], "no such model folder"),
        (["--temperature", "-1"], "temperature must be"),
    ],
)
def test_mistakes_in_the_flags(arguments, reason):
    process = start(*arguments)
    answers, notes = process.communicate("", timeout=120)
    assert process.returncode in (1, 2) and answers == ""
    assert notes.count("\n") == 1 and notes.startswith("mindgen: error: ") and reason in notes
