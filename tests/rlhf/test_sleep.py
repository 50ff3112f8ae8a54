"""An engine that sleeps gives its memory back, refuses requests, and wakes up as it was."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import engine_of, held_after
from tiny_models import make_model
from tiny_tokenizers import VOCAB_SIZE, make_tokenizer
from updates import PROMPTS, answers, tokens

from mindgen import LLM, SamplingParams
from mindgen.errors import AsleepError, CheckpointError, ConfigError
from mindgen.runner.weight_file import WeightFile

LONG = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)


@pytest.fixture
def llm(folders):
    llm = LLM(folders[0], block_size=4)
    yield llm
    llm.close()


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("sizes", [{}, {"tensor_parallel_size": 2}])
def test_sleep_and_wake_change_no_bit(folders, level, sizes):
    llm = LLM(folders[0], block_size=4, **sizes)
    for source in (None, folders[1]):
        if source is not None:
            llm.update_weights(source)
        before, digest = tokens(answers(llm)), llm.weight_checksum
        llm.sleep(level)
        with pytest.raises(AsleepError, match=r"without its kv_cache( and weights)?: call wake_up\(\) first"):
            answers(llm)
        llm.wake_up()
        assert (tokens(answers(llm)), llm.weight_checksum) == (before, digest)
    engine_of(llm).check_integrity()
    llm.close()


def test_part_after_part(llm, folders):
    before = tokens(answers(llm))
    llm.sleep(2)
    llm.sleep(1)
    llm.wake_up(["kv_cache"])
    with pytest.raises(AsleepError, match="without its weights"):
        answers(llm)
    llm.wake_up(["weights"])
    assert tokens(answers(llm)) == before
    for call in (lambda: llm.sleep(3), lambda: llm.wake_up(["cache"]), lambda: llm.wake_up("weights")):
        with pytest.raises(ConfigError):
            call()


def test_new_weights_come_while_it_sleeps(llm, folders):
    """What has come is what wakes up, and not the weights that slept."""
    fresh = LLM(folders[1], block_size=4)
    expected = tokens(answers(fresh))
    fresh.close()
    llm.sleep(2)
    llm.update_weights(folders[1])
    with pytest.raises(AsleepError, match="without its kv_cache:"):
        answers(llm)
    llm.wake_up()
    assert tokens(answers(llm)) == expected


def test_requests_go_on_after_the_night(llm):
    expected = tokens(answers(llm, params=LONG))
    with held_after(llm, 6, lambda: llm.stream(PROMPTS, LONG)) as (stream,):
        llm.sleep(2, in_flight="continue")
    found: list = []
    reading = threading.Thread(target=lambda: found.extend(chunk.output for chunk in stream if chunk.output))
    reading.start()
    reading.join(0.3)
    assert reading.is_alive() and not found
    llm.wake_up()
    reading.join(60)
    found.sort(key=lambda output: output.request_id)
    assert [each[0] for each in tokens(found)] == [each[0] for each in expected]
    assert all(each.weight_versions is None for output in found for each in output.outputs)


def test_a_deadline_comes_by_night_as_well(llm):
    late = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True, deadline_seconds=0.5)
    with held_after(llm, 6, lambda: llm.stream(PROMPTS, late)) as (stream,):
        llm.sleep(1, in_flight="continue")
    outputs = [chunk.output for chunk in stream if chunk.output is not None]
    assert {output.outputs[0].stop_reason for output in outputs} == {"deadline"} and len(outputs) == len(PROMPTS)
    llm.wake_up()
    assert tokens(answers(llm))


def test_requests_finish_or_are_called_off_before(llm):
    stream = llm.stream(PROMPTS, LONG)
    stream.advance()
    llm.sleep(1, in_flight="finish")
    assert finish_reasons(stream) == {"length"}
    llm.wake_up()
    with held_after(llm, 6, lambda: llm.stream(PROMPTS, LONG)) as (stream,):
        llm.sleep(1, in_flight="abort")
    assert finish_reasons(stream) == {"abort"}
    llm.wake_up()


def finish_reasons(stream) -> set[str]:
    return {chunk.output.outputs[0].finish_reason for chunk in stream if chunk.output is not None}


def resident_bytes() -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def test_memory_is_given_back(tmp_path):
    sizes = {"hidden_size": 768, "intermediate_size": 3000, "num_hidden_layers": 4}
    folder = make_model("llama3-grouped-tied", tmp_path, torch.bfloat16, vocab_size=VOCAB_SIZE, **sizes)
    llm = LLM(make_tokenizer("byte_level_bpe", folder), num_blocks=2000, max_model_len=250)
    llm.generate([[5] * 200] * 32, SamplingParams(max_tokens=8, ignore_eos=True))
    llm.generate([[place + 3] * 240 for place in range(64)], SamplingParams(max_tokens=1, ignore_eos=True))
    before, weights = resident_bytes(), sum(engine_of(llm)._runner.report.weights.values())
    llm.sleep(1)
    without_cache = resident_bytes()
    llm.sleep(2)
    without_weights = resident_bytes()
    assert before - without_cache > 6 << 20  # 15,000 tokens of 512 bytes
    assert without_cache - without_weights > 0.8 * weights > 40 << 20
    llm.wake_up()
    assert resident_bytes() - without_weights > 0.4 * weights
    llm.close()


def test_a_file_that_has_changed():
    memory = np.arange(1 << 16, dtype=np.float32)
    kept = WeightFile([memory])
    kept.drop()
    kept._file.seek(0)
    kept._file.write(b"other")
    with pytest.raises(CheckpointError, match="does not hold what was written"):
        kept.restore()
