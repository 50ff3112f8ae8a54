"""Requests aborted at every moment of their lives, while others go on as if nothing had happened."""

import numpy as np
import pytest
import torch
from engine_probe import Ask, EngineProbe
from tiny_models import VOCAB_SIZE, make_model

from mindgen.sampling_params import SamplingParams

STATES = {"waiting", "prefill", "decode", "forked", "fork waiting", "beams", "beams waiting", "swapped", "preempted"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model("llama-multi-head", tmp_path_factory.mktemp("model"), torch.float32)


def asks() -> list[Ask]:
    kinds = [
        {"temperature": 0},
        {"seed": 1, "n": 3},
        {"use_beam_search": True, "n": 3},
        {"seed": 2, "num_speculative_tokens": 3, "prompt_logprobs": 0},
        {"seed": 3, "n": 4, "best_of": 5},
    ]
    generator = np.random.default_rng(0)
    return [
        Ask(generator.integers(3, VOCAB_SIZE, 12 + 5 * i).tolist(), SamplingParams(max_tokens=14, **kind))
        for i, kind in enumerate(kinds)
    ]


def state(request, waiting: set) -> str:
    sequences = [each for each in request.sequences if each.finish_reason is None]
    if request.beam_search is not None and request.beam_search.beams[0].token_ids:
        return "beams" if all(each.block_table for each in sequences) else "beams waiting"
    if any(each.swapped_blocks for each in sequences):
        return "swapped"
    if request.sequences[0].num_computed_tokens == 0 and not request.sequences[0].output_token_ids:
        return "waiting"
    if not request.sequences[0].output_token_ids:
        return "prefill"
    if len(sequences) == 1:
        return "preempted" if sequences[0] in waiting else "decode"
    return "fork waiting" if waiting.intersection(sequences) else "forked"


def results(requests) -> list[list[list[int]]]:
    """Of each request the tokens of its outputs."""
    return [
        [list(hypothesis.token_ids) for hypothesis in request.beam_search.hypotheses]
        if request.beam_search is not None
        else [sequence.output_token_ids for sequence in request.sequences]
        for request in requests
    ]


@pytest.fixture(scope="module")
def seen():
    """The states in which requests were aborted."""
    return set()


@pytest.mark.parametrize("swap_space", [0, 1e-2], ids=["recompute", "swap"])
def test_at_every_step(folder, seen, swap_space):
    probe = EngineProbe(folder, num_blocks=26, max_num_seqs=8, max_num_batched_tokens=16, swap_space=swap_space)
    expected = results(probe.alone(asks()))
    num_moments = 0
    for victim in range(len(expected)):
        for moment in range(200):
            probe.engine.reset_prefix_cache()
            requests = [probe.add(ask) for ask in asks()]
            for _ in range(moment):
                probe.step()
            if requests[victim].is_finished:
                probe.run([])
                break
            waiting = {entry[-1] for entry in probe.engine._scheduler._waiting}
            seen.add(state(requests[victim], waiting))
            probe.engine.abort(requests[victim])
            probe.engine.check_integrity()
            assert requests[victim].is_finished
            assert {each.finish_reason for each in requests[victim].sequences} <= {"abort", "length", "stop"}
            probe.run([])
            num_moments += 1
            found = results(requests)
            assert found[:victim] + found[victim + 1 :] == expected[:victim] + expected[victim + 1 :]
            assert not probe.engine._swap_space._kept
    assert num_moments > 60 and probe.num_preempted > 0


def test_all_those_moments_were_different_states(seen):
    assert seen == STATES


def test_aborting_what_has_ended_changes_nothing(folder):
    probe = EngineProbe(folder)
    (request,) = probe.run(asks()[:1])
    probe.engine.abort(request)
    assert request.sequences[0].finish_reason == "length" and len(request.sequences[0].output_token_ids) == 14
