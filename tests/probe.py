"""Runs chosen batches through the network, below the scheduler and the sampler."""

from pathlib import Path

import numpy as np

from mindgen.adapters.loader import load_adapter
from mindgen.engine.batch import build_batch
from mindgen.engine.block_manager import BlockManager
from mindgen.engine.runner import Runner
from mindgen.engine.sampling_row import SamplingRow
from mindgen.engine.scheduler import ScheduledSequence
from mindgen.engine.sequence import Sequence
from mindgen.layers.attention import CacheShape
from mindgen.model_config import read_model_config
from mindgen.outputs import RequestMetrics
from mindgen.sampling_params import SamplingParams

BLOCK_SIZE = 8


class Probe:
    """A network with adapters in slots 1, 2, ..., and the logits that it gives to sequences."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        adapters: list[Path] | None = None,
        max_rank: int = 16,
        executor: str = "mindgen",
    ) -> None:
        cache = CacheShape(num_blocks=320, block_size=BLOCK_SIZE)
        self.runner = Runner(folder, read_model_config(folder), cache, 1025, dtype, executor)
        self.num_slots = len(adapters or []) + 1
        if adapters:
            self.runner.enable_lora(self.num_slots, max_rank)
        for slot, path in enumerate(adapters or [], start=1):
            self.runner.write_adapter(slot, load_adapter(path.name, path, self.runner.modules()))
        self._blocks = BlockManager(cache.num_blocks, BLOCK_SIZE)

    def open(self, token_ids: list[int], slot: int = 0) -> Sequence:
        sequence = Sequence(
            request_id=0,
            token_ids=list(token_ids),
            params=SamplingParams(),
            max_len=len(token_ids) + 80,
            sampling_row=SamplingRow(SamplingParams(), token_ids, vocab_size=1, seed=0),
            metrics=RequestMetrics(0.0),
            adapter_slot=slot,
        )
        self._blocks.allocate(sequence)
        return sequence

    def close(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self._blocks.free(sequence)

    def advance(self, sequences: list[Sequence], counts: list[int] | None = None) -> np.ndarray:
        """Computes the next tokens of each sequence (all of them, or as many as counts says); their logits (B, V)."""
        counts = counts or [sequence.num_uncomputed_tokens for sequence in sequences]
        scheduled = [ScheduledSequence(sequence, count) for sequence, count in zip(sequences, counts, strict=True)]
        batch = build_batch(scheduled, BLOCK_SIZE, self.num_slots)
        logits = np.empty_like(rows := self.runner.run(batch))
        logits[batch.order] = rows
        for sequence, count in scheduled:
            sequence.num_computed_tokens += count
        return logits

    def logits(self, prompts: list[list[int]], slots: list[int] | None = None) -> np.ndarray:
        """The logits (B, V) that follow the prompts, computed in one batch."""
        sequences = [self.open(prompt, slot) for prompt, slot in zip(prompts, slots or [0] * len(prompts), strict=True)]
        logits = self.advance(sequences)
        self.close(*sequences)
        return logits
