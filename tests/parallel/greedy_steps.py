"""Several sequences continued together, as tests of ranks and stages compare them with one process."""

import numpy as np
from probe import Probe


def prompts(count: int, longest: int = 40) -> list[list[int]]:
    generator = np.random.default_rng(3)
    return [generator.integers(3, 320, length).tolist() for length in generator.integers(1, longest, count)]


def continue_greedily(probe: Probe, slots: list[int], num_steps: int) -> tuple[np.ndarray, list[list[int]]]:
    """The logits of all steps, and the tokens chosen; base rows and adapters in one batch."""
    sequences = [probe.open(prompt, slot) for prompt, slot in zip(prompts(len(slots)), slots, strict=True)]
    logits = []
    for _ in range(num_steps):
        logits.append(probe.advance(sequences))
        for sequence, row in zip(sequences, logits[-1], strict=True):
            sequence.token_ids.append(int(row.argmax()))
    probe.close(*sequences)
    return np.stack(logits), [sequence.token_ids for sequence in sequences]
