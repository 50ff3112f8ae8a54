"""The batch command on the demo: the document's examples for real, exit codes, signals, files made of files."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from mindgen.batch.progress import Progress
from mindgen.cli.batch_progress import progress_line, progress_picture
from mindgen.cli.main import main

ANSWERS = json.loads((Path(__file__).parents[1] / "data" / "demo_answers.json").read_text(encoding="utf-8"))
BASE = [answer for answer in ANSWERS if answer["adapter_id"] is None][:3]
PROMPTS = [answer["prompt"] for answer in BASE]
FILES = ("data.path=in.parquet", "data.output_path=out.parquet", "model.path=demo")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of its own, with three prompts in in.parquet; its code, output and errors."""
    monkeypatch.chdir(tmp_path)
    write(Path("in.parquet"), prompt=PROMPTS, id=[7, 8, 9])

    def batch(*words: object) -> tuple[int, str, list[str]]:
        code = main(["batch", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return batch


def write(path: Path, **columns: list) -> None:
    pq.write_table(pa.table(columns), path)


def rows(path: str = "out.parquet") -> list[dict]:
    return pq.read_table(path).to_pylist()


# As the document has them, with the demo, few tokens and few devices.
EXAMPLES = {
    "1": "trainer.nnodes=1 trainer.n_gpus_per_node=1 data.prompt_key=prompt data.n_samples=1 rollout.temperature=1.0 "
    "rollout.top_p=0.7 rollout.prompt_length=64 rollout.response_length=8 rollout.tensor_model_parallel_size=1 "
    "rollout.gpu_memory_utilization=0.1",
    "2": "data.n_samples=8 rollout.temperature=1.0 rollout.top_p=0.9 rollout.response_length=8",
    "3": "data.n_samples=1 rollout.temperature=0.0 rollout.top_k=-1 rollout.top_p=1.0 rollout.dtype=auto",
    "4": "trainer.nnodes=1 trainer.n_gpus_per_node=2 data.batch_size=2 rollout.tensor_model_parallel_size=1 "
    "rollout.gpu_memory_utilization=0.1 rollout.response_length=8",
    "5": "trainer.nnodes=1 trainer.n_gpus_per_node=2 rollout.tensor_model_parallel_size=2 rollout.prompt_length=64 "
    "rollout.gpu_memory_utilization=0.1 rollout.response_length=8 rollout.dtype=bfloat16 rollout.enforce_eager=True",
    "6": "rollout.name=hf rollout.do_sample=True rollout.top_k=0 rollout.response_length=8",
}
SAMPLES = {"1": 1, "2": 8, "3": 1, "4": 5, "5": 5, "6": 5}


@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=[pytest.mark.slow] if number != "1" else []) for number in EXAMPLES]
)
def test_the_examples_of_the_document(run, number):
    code, _, errors = run(*EXAMPLES[number].split(), *FILES)
    assert code == 0, errors
    samples = SAMPLES[number]
    found = rows()
    assert [(row["prompt"], row["id"]) for row in found] == [
        (prompt, place) for prompt, place in zip(PROMPTS, (7, 8, 9), strict=True) for _ in range(samples)
    ]
    assert all(row["generated_text"] and row["error"] is None for row in found)
    assert any(f"n_samples {samples}, seed 0" in line for line in errors)
    if number == "3":
        assert [row["generated_text"] for row in found] == [answer["answer"] for answer in BASE]


def test_rows_that_fail_make_the_exit_code_3(run):
    write(Path("in.parquet"), prompt=[PROMPTS[0], "", PROMPTS[1], "x"], adapter_id=["A1", None, None, "nope"])
    words = (*FILES, "data.n_samples=2", "rollout.response_length=4")
    code, _, errors = run(*words)
    assert code == 3
    assert "mindgen: 2 row(s) failed, samples by kind: adapter 2, prompt 2" in errors
    assert [row["error"] is None for row in rows()] == [True, True, False, False, True, True, False, False]
    assert run(*words)[0] == 3, "that the job is done changes nothing about its rows"
    assert any(f"model digest │ {rows()[0]['model_digest']}" in " ".join(line.split()) for line in errors)
    code, out, _ = run("status", "out.parquet")
    assert code == 0 and "finished" in out and "4 of 4 (100.0%)" in out
    assert run(*FILES, "data.n_samples=2", "rollout.response_length=4", "--fail_fast", "--overwrite")[0] == 1


@pytest.mark.slow
def test_flags_say_the_same_as_keys(run):
    keys = ("rollout.temperature=0.5", "rollout.top_k=-1", "rollout.top_p=1.0", "data.n_samples=2",
            "rollout.response_length=6", "rollout.dtype=auto", "outputs.form=responses", "outputs.prefix=new_",
            "rollout.calculate_log_probs=True", "outputs.token_ids=True", "rollout.seed=3")  # fmt: skip
    assert run(*keys, *FILES)[0] == 0
    flags = ("--input", "in.parquet", "--output", "flags.parquet", "--model", "demo", "--temperature", 0.5,
             "--n_samples", 2, "--max_tokens", 6, "--form", "responses", "--prefix", "new_", "--logprobs",
             "--token-ids", "--seed", 3, "--resume")  # fmt: skip
    assert run(*flags)[0] == 0
    assert rows() == rows("flags.parquet")
    assert len(rows()[0]["new_responses"]) == len(rows()[0]["new_logprobs"]) == 2


def test_flags_go_before_words_and_words_before_the_file(run):
    Path("job.yaml").write_text("data: {path: in.parquet, output_path: out.jsonl, n_samples: 3}\n"
                                "rollout: {response_length: 2, temperature: 0.5, top_k: -1}")  # fmt: skip
    code, _, errors = run("data.n_samples=2", "--config", "job.yaml", "--temperature", 0.25, "rollout.top_p=0.5")
    assert code == 0, errors
    assert "mindgen: sampling: temperature 0.25, top_k -1, top_p 0.5, max_tokens 2, n_samples 2, seed 0" in errors
    assert len(Path("out.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no input: give data.path=FILE, or --input FILE"),
        (["stat", "out.parquet"], "'stat' is neither a setting like key=value nor one of status, split, merge, compare "
         "(did you mean status?)"),
        (["data.path=in.parquet", " "], "in a shell, nothing may stand behind the \\ at a line's end"),
        (["data.paths=in.parquet"], "unknown key 'data.paths'; did you mean 'data.path'?"),
        (["input=in.parquet", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["input=in.parquet", "--sed", "1"], "unrecognized arguments: --sed 1"),
        (["input=in.parquet", "output=o.parquet", "--max_length", "9"], "unrecognized arguments: --max_length 9"),
        (["input=in.parquet", "output=o.parquet", "columns.prompt=text"], "has no column text"),
        (["input=nowhere.parquet", "output=o.parquet"], "there is no file or folder nowhere.parquet"),
        (["input=in.parquet", "output=o.exe"], "the output o.exe must end in one of"),
        (["status", "out.parquet"], "there is no job of the output out.parquet"),
        (["status", "."], "name the file that the job writes, not ."),
        (["status", "/"], "name the file that the job writes, not /"),
        (["split", "in.parquet", "--chunks", "4"], "3 row(s) cannot be split into 4 files"),
        (["split", "in.parquet", "--chunks", "2", "--output", "x.parquet"], "--output must have {}"),
        (["merge", "in.parquet", "--output", "in.parquet"], "in.parquet is there already"),
    ],
)  # fmt: skip
def test_wrong_usage(run, capsys, words, message):
    try:
        code, _, errors = run(*words)
    except SystemExit as left:
        code, errors = left.code, capsys.readouterr().err.splitlines()
    assert message in errors[-1] and not any("Traceback" in line for line in errors)
    assert code in (1, 2) and (code == 2 or "has no column" in message)


@pytest.mark.slow
def test_a_large_input_in_chunks_and_their_outputs_in_one(run):
    """The document's way with large inputs: what comes out is what one job makes."""
    write(Path("large.parquet"), prompt=PROMPTS * 4, id=list(range(12)))
    settings = ("rollout.temperature=0", "data.n_samples=1", "rollout.response_length=3", "model.path=demo")
    assert run("split", "large.parquet", "--chunks", "3") == (
        0,
        "chunk_1.parquet\nchunk_2.parquet\nchunk_3.parquet\n",
        [],
    )
    for number in (1, 2, 3):
        assert run(f"data.path=chunk_{number}.parquet", f"data.output_path=output_{number}.parquet", *settings)[0] == 0
    code, out, _ = run("merge", "output_*.parquet", "--output", "final.parquet")
    assert (code, out) == (0, "final.parquet: 12 row(s) of 3 file(s)\n")
    assert run("data.path=large.parquet", "data.output_path=whole.parquet", *settings)[0] == 0
    assert rows("final.parquet") == rows("whole.parquet")


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_job_that_a_signal_ends_goes_on_with_the_same_command(tmp_path, number, code):
    write(tmp_path / "in.parquet", prompt=PROMPTS * 400)
    command = [sys.executable, "-m", "mindgen.batch", *FILES, "data.n_samples=1", "rollout.response_length=200",
               "rollout.ignore_eos=True", "part_rows=8"]  # fmt: skip
    job = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    lines = iter(job.stderr)
    assert any("rows=0/1200" in line for line in lines)
    while not list(tmp_path.glob("out.parquet.job/parts/*.jsonl")):
        assert job.poll() is None
    job.send_signal(number)
    rest = list(lines)
    assert job.wait(60) == code
    assert rest[-1] == "mindgen: stopped; the same command goes on with the job\n"
    assert not (tmp_path / "out.parquet").exists()
    assert main(["batch", "status", str(tmp_path / "out.parquet")]) == 0


def test_what_is_not_known_of_the_engine_is_not_shown():
    progress = Progress(10, 1)
    assert "rows=0/10" in progress_line(progress.snapshot()) and "running=" not in progress_line(progress.snapshot())
    assert "KV cache" not in picture(progress)
    progress.observe(SimpleNamespace(requests_running=7, requests_waiting=9, kv_blocks=200, kv_blocks_used=50))
    assert " running=7 waiting=9 kv_cache=25% elapsed=" in progress_line(progress.snapshot())
    assert "7 running, 9 waiting, KV cache 25%" in picture(progress)


def picture(progress: Progress) -> str:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as captured:
        console.print(progress_picture(progress.snapshot()))
    return captured.get()
