import io
import os
import pty
import re

import pytest
from batch_answers import EVIL, Clock, answer, evil_summary

from mindgen.batch.progress import Progress
from mindgen.batch.summary import JobFacts
from mindgen.cli.batch_progress import watch


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    made = Progress(40, 1, clock)
    for row in range(12):
        clock.now += 1
        failure = {"error": "no", "error_kind": "too_long"} if row == 5 else {}
        made.add(answer(row, 10, 20, adapter_id=EVIL if row % 3 == 0 else None, **failure))
        made.row_done(failed=bool(failure))
    return made


def test_lines_come_every_ten_seconds_and_are_words_to_search_for(progress, clock):
    file = io.StringIO()
    with watch(file) as watcher:
        watcher.begin(progress.snapshot())
        for _ in range(50):
            clock.now += 0.5
            watcher.update(progress.snapshot())
        watcher.say("a torn\nline \x1b[31m [bold]is ignored[/bold]")
    lines = file.getvalue().splitlines()
    assert len(lines) == 1 + 2 + 1
    assert lines[0].startswith("mindgen: rows=12/40 (30.0%) failed=1 prompt_tokens_per_s=10 output_tokens_per_s=20 ")
    assert "elapsed=0:00:12 eta=0:00:28" in lines[0] and "adapters=base:8," in lines[0]
    assert lines[0].endswith("errors=too_long:1") and "elapsed=0:00:32" in lines[2]
    assert (
        lines[3] == "mindgen: a torn\N{REPLACEMENT CHARACTER}line \N{REPLACEMENT CHARACTER}[31m [bold]is ignored[/bold]"
    )
    assert "\x1b" not in file.getvalue()


def test_the_last_table_counts_failures_by_kind(progress):
    file = io.StringIO()
    facts = JobFacts(model="m", model_digest="d", output="answers[1].parquet")
    with watch(file) as watcher:
        watcher.end(progress.summary(facts, finished=False))
    text = file.getvalue()
    assert "answers[1].parquet (not finished)" in text
    assert re.search(r"rows +│ +12 of 40", text) and re.search(r"samples failed: too_long +│ +1 ", text)
    assert "in all" not in text


def test_a_stranger_cannot_write_to_the_terminal():
    file = io.StringIO()
    with watch(file) as watcher:
        watcher.end(evil_summary())
    assert "\x1b" not in file.getvalue() and "evil.example" in file.getvalue()


def test_on_a_terminal_a_picture_is_drawn_where_it_stands(progress, clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, pytest.raises(KeyboardInterrupt), watch(terminal) as watcher:
        watcher.begin(progress.snapshot())
        watcher.say("said in between")
        for _ in range(10):
            clock.now += 0.05  # two of these are a quarter of a second apart
            watcher.update(progress.snapshot())
        raise KeyboardInterrupt
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    text = shown.decode()
    assert "12/40 (30.0%) rows" in text and "said in between" in text and "of outputs" in text
    assert 3 <= text.count("12/40") <= 5
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is there again
