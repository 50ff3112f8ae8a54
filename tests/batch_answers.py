"""Answers and summaries for the tests of counts and reports."""

from mindgen.batch.answer import Answer
from mindgen.batch.progress import Progress
from mindgen.batch.summary import BatchSummary, JobFacts

EVIL = '<script src="http://evil.example/x.js">alert(1)</script>&\x1b[31m"'


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(row: int, prompt_tokens: int = 3, output_tokens: int = 5, **more) -> Answer:
    text = None if "error" in more else "text"
    return Answer(row=row, sample=0, text=text, prompt_tokens=prompt_tokens, completion_tokens=output_tokens, **more)


def evil_summary() -> BatchSummary:
    """Whatever comes from strangers would do harm if it were not taken as text."""
    clock = Clock()
    progress = Progress(10, 1, clock)
    for row in range(6):
        clock.now += 2
        failure = {"error": EVIL, "error_kind": EVIL} if row == 3 else {}
        progress.add(answer(row, row, 10 * row, adapter_id=EVIL if row % 2 else None, adapter_digest=EVIL, **failure))
        progress.row_done(failed=bool(failure))
    facts = JobFacts(model=EVIL, model_digest="abc", output=f"folder/{EVIL}", settings={EVIL: EVIL})
    return progress.summary(facts, finished=False)
