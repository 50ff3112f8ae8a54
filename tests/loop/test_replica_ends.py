"""A replica whose process ends takes what it was at along; the others serve on, and it comes back."""

import gc
import os
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from mindgen import LLM, SamplingParams
from mindgen.errors import MindgenError, ReplicaEndedError, UnknownAdapterError
from mindgen.parallel.channel import Channel
from mindgen.parallel.messages import Answer, Call
from mindgen.parallel.worker_handle import WorkerHandle

ROOT = Path(__file__).parents[2]
PROMPT = "An increasing sequence: six,"
LONG = SamplingParams(temperature=0, max_tokens=450, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=12)
SECONDS = 60


def workers(module: str, parent: int) -> list[int]:
    """Processes of this module that a process has started."""
    found = []
    for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in map(int, tasks.read_text().split()):
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def wait_for(is_so) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.02)


def texts(llm: LLM, adapter: str | None = None, count: int = 8) -> set[str]:
    return {output.outputs[0].text for output in llm.generate([PROMPT] * count, SHORT, adapter)}


def test_the_others_serve_on_and_it_comes_back(capfd):
    with closing(LLM("demo", data_parallel_size=2, num_threads=2)) as llm:
        expected = {name: texts(llm, name) for name in (None, "A1", "A3")}
        assert all(len(each) == 1 for each in expected.values()) and llm.replica_state.lost == {}
        llm.add_adapter("early", ROOT / "adapters/A1")
        llm.remove_adapter("A2")
        (pid,) = workers("mindgen.loop.replica", os.getpid())
        stream = llm.stream([PROMPT] * 2, LONG)
        stream.advance()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ReplicaEndedError, match=rf"replica 1 \(process {pid}\) was killed by signal 9"):
            list(stream)
        assert "killed by signal 9" in llm.replica_state.lost[1] and list(llm.replica_metrics()) == [0]
        assert texts(llm) == expected[None]
        llm.add_adapter("late", ROOT / "adapters/A3")
        wait_for(lambda: not llm.replica_state.lost)
        assert (llm.replica_state.wanted, llm.replica_state.num_ends) == (2, 1)
        names = {"early": expected["A1"], "late": expected["A3"], None: expected[None]}
        assert {name: texts(llm, name) for name in names} == names
        assert all(each.generated_tokens > 12 * 8 for each in llm.replica_metrics().values())
        with pytest.raises(UnknownAdapterError):
            texts(llm, "A2")
        (again,) = workers("mindgen.loop.replica", os.getpid())
        assert again != pid
    said = capfd.readouterr().err
    assert f"has failed, and it is started again: replica 1 (process {pid}) was killed by signal 9" in said
    assert "replica 1 serves again" in said
    wait_for(lambda: not workers("mindgen.loop.replica", os.getpid()))


@pytest.mark.slow
def test_a_rank_of_a_replica_ends_that_replica_alone():
    with closing(LLM("demo", data_parallel_size=2, tensor_parallel_size=2)) as llm:
        expected = texts(llm)
        (pid,) = workers("mindgen.loop.replica", os.getpid())
        (rank,) = workers("mindgen.runner.rank_process", pid)
        os.kill(rank, signal.SIGKILL)
        with pytest.raises(ReplicaEndedError, match="rank 1"):
            texts(llm)
        wait_for(lambda: 1 in llm.replica_state.lost)
        assert texts(llm) == expected
        wait_for(lambda: not llm.replica_state.lost)
        assert texts(llm) == expected


@pytest.mark.slow
def test_a_model_that_nobody_has_any_more_ends_its_replicas():
    held = [LLM("demo", data_parallel_size=2)]
    (pid,) = workers("mindgen.loop.replica", os.getpid())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: 1 in held[0].replica_state.lost)
    wait_for(lambda: not held[0].replica_state.lost)
    held.clear()
    gc.collect()
    wait_for(lambda: not workers("mindgen.loop.replica", os.getpid()))


def test_an_answer_of_another_type_is_an_error_for_who_waits():
    here, there = map(Channel, socket.socketpair())
    handle, ended = WorkerHandle("replica", 1), []
    handle.line = here
    thread = threading.Thread(target=handle.receive, args=(print, None, ended.append), daemon=True)
    thread.start()
    waiting, later = handle.call("metrics"), handle.call("metrics", result=int)
    number = there.receive(Call).number
    there.send(Answer.of(number, "a text, where none was expected"))
    for future in (waiting, later):
        with pytest.raises(MindgenError, match="malformed|nobody asked for"):
            future.result(10)
    thread.join(10)
    assert len(ended) == 1 and "has answered what nobody asked for" in str(ended[0])
    here.close()
    there.close()
