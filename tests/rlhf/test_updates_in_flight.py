"""What becomes of requests that have begun when the base model's weights change: they see the old or the new ones."""

import threading

import pytest
from loops import engine_of, held_after
from updates import PROMPTS, answers, tokens

from mindgen import SamplingParams
from mindgen.errors import WeightUpdateError
from mindgen.loop.weight_updates import UpdateRequest
from mindgen.weights.foreign_tensor import named_tensors

LONG = SamplingParams(temperature=0, max_tokens=120, ignore_eos=True)


def begun(llm, params=LONG):
    """A stream whose requests have generated something, and do no more until this is left."""
    return held_after(llm, 6, lambda: llm.stream(PROMPTS, params))


def finished(stream):
    return [chunk.output for chunk in stream if chunk.output is not None]


def test_requests_in_flight_finish_on_the_old_weights(llm, folders, fresh):
    expected = answers(llm, params=LONG)
    stream = llm.stream(PROMPTS, LONG)
    stream.advance()
    updating = threading.Thread(target=llm.update_weights, args=(folders[1],))
    updating.start()
    late: list = []
    while llm._model.updates._open is None and updating.is_alive():
        pass
    asking = threading.Thread(target=lambda: late.extend(answers(llm)))
    asking.start()
    old = sorted(finished(stream), key=lambda output: output.request_id)
    updating.join(60)
    asking.join(60)
    assert tokens(old) == tokens(expected)
    assert {output.weight_checksum for output in old} == {fresh[0][1]}
    assert all(each.weight_versions is None for output in old for each in output.outputs)
    assert {output.weight_checksum for output in late} <= {fresh[0][1], fresh[1][1]}
    assert tokens(answers(llm)) == fresh[1][0]


def test_who_is_interrupted_while_requests_finish_leaves_the_old_weights(llm, folders, fresh):
    def interrupt() -> bool:
        raise KeyboardInterrupt

    before = llm.weight_version, llm.weight_checksum
    for is_wanted, error in ((interrupt, KeyboardInterrupt), (lambda: False, WeightUpdateError)):
        with begun(llm) as (stream,):
            update = llm.open_update(UpdateRequest())
            update.is_wanted = is_wanted
            with pytest.raises(error):
                update.run(named_tensors(folders[1], folders[1]))
        assert {output.weight_checksum for output in finished(stream)} == {fresh[0][1]}
        assert (llm.weight_version, llm.weight_checksum) == before and tokens(answers(llm)) == fresh[0][0]
    assert llm.update_weights(folders[1]).checksum_after == fresh[1][1] and tokens(answers(llm)) == fresh[1][0]


def test_a_file_that_is_written_again_while_requests_finish(llm, folders, fresh, tmp_path):
    file = tmp_path / "new.safetensors"
    file.write_bytes((folders[1] / "model.safetensors").read_bytes())
    is_written = threading.Event()

    def write_again() -> bool:
        file.write_bytes((folders[0] / "model.safetensors").read_bytes())
        is_written.set()
        return True

    reports: list = []
    with begun(llm):
        update = llm.open_update(UpdateRequest())
        update.is_wanted = write_again
        updating = threading.Thread(target=lambda: reports.append(update.run(named_tensors(file, folders[1]))))
        updating.start()
        assert is_written.wait(60)
    updating.join(60)
    assert reports[0].checksum_after == fresh[1][1] == llm.weight_checksum and tokens(answers(llm)) == fresh[1][0]


def test_requests_in_flight_are_called_off(llm, folders):
    with begun(llm) as (stream,):
        report = llm.update_weights(folders[1], in_flight="abort")
    old = finished(stream)
    assert report.aborted == len(PROMPTS) == len(old)
    assert {(o.outputs[0].finish_reason, o.outputs[0].stop_reason) for o in old} == {("abort", "weights")}
    assert {output.weight_version for output in old} == {report.version - 1}
    engine_of(llm).check_integrity()


@pytest.mark.parametrize("n", [1, 2])
def test_requests_in_flight_go_on_with_the_new_weights(llm, folders, fresh, n):
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=60, ignore_eos=True, n=n)
    with begun(llm, params) as (stream,):
        report = llm.update_weights(folders[1], in_flight="continue")
    engine_of(llm).check_integrity()
    for output in finished(stream):
        assert output.weight_version == report.version and output.weight_checksum == fresh[1][1]
        for each in output.outputs:
            versions = each.weight_versions
            assert versions == sorted(versions) and len(versions) == 60
            assert {*versions} == {report.version - 1, report.version}
    assert tokens(answers(llm)) == fresh[1][0]


def test_what_follows_is_what_the_new_weights_say(llm, folders):
    """Kept text is read again by the new weights: the rest is their answer to prompt and text."""
    with begun(llm) as (stream,):
        llm.update_weights(folders[1], in_flight="continue")
    for output in finished(stream):
        (each,) = output.outputs
        num_old = each.weight_versions.count(each.weight_versions[0])
        assert 0 < num_old < 120
        prompt = output.prompt_token_ids + each.token_ids[:num_old]
        rest = SamplingParams(temperature=0, max_tokens=120 - num_old, ignore_eos=True)
        assert llm.generate([prompt], rest)[0].outputs[0].token_ids == each.token_ids[num_old:]


def test_beams_go_on(llm, folders):
    params = SamplingParams(use_beam_search=True, n=3, temperature=0, max_tokens=60, ignore_eos=True)
    stream = llm.stream(PROMPTS, params)
    reading: list = []
    thread = threading.Thread(target=lambda: reading.extend(finished(stream)))
    thread.start()
    while engine_of(llm).metrics().generated_tokens == 0 or not engine_of(llm).has_unfinished():
        pass
    llm.update_weights(folders[1], in_flight="continue")
    thread.join(60)
    engine_of(llm).check_integrity()
    assert [len(output.outputs) for output in reading] == [3] * len(PROMPTS)


def test_no_request_is_staler_than_allowed(llm, folders):
    with begun(llm) as (stream,):
        reports = [
            llm.update_weights(folder, in_flight="continue", max_staleness=2) for folder in [folders[1], folders[0]]
        ]
        assert [report.aborted for report in reports] == [0, 0]
        report = llm.update_weights(folders[1], in_flight="continue", max_staleness=2)
    assert report.aborted == len(PROMPTS)
    for output in finished(stream):
        assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("abort", "stale")


@pytest.mark.parametrize(("num_streams", "count"), [(6, 12), pytest.param(16, 50, marks=pytest.mark.slow)])
def test_many_streams_while_versions_change(llm, folders, fresh, num_streams, count):
    """Each request sees one version, and says which."""
    expected = {digest: found for found, digest in fresh}
    found: list = []

    def ask():
        while not done.is_set():
            found.extend(zip(PROMPTS, answers(llm), strict=True))

    done = threading.Event()
    threads = [threading.Thread(target=ask) for _ in range(num_streams)]
    for thread in threads:
        thread.start()
    number = 0
    while number < count or len({output.weight_version for _, output in found[:]}) <= 5:
        llm.update_weights(folders[(number + 1) % 2])
        number += 1
    done.set()
    for thread in threads:
        thread.join(60)
    for prompt, output in found:
        assert output.error is None
        place = PROMPTS.index(prompt)
        assert (output.outputs[0].token_ids) == expected[output.weight_checksum][place][0]
        assert output.outputs[0].weight_versions is None
    engine_of(llm).check_integrity()
