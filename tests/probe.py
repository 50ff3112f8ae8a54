"""Runs chosen batches through the network, below the scheduler and the sampler."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sequences import make_sequence

from mindgen.adapters.loader import load_adapter
from mindgen.adapters.slot_layout import SlotLayout, SlotMove, plan_slots
from mindgen.engine.batch import build_batch
from mindgen.engine.block_manager import BlockManager
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.open_engine import runner_spec
from mindgen.engine.schedule import ScheduledSequence
from mindgen.engine.sequence import Sequence
from mindgen.runner.parallel import make_runner
from mindgen.weights.architecture import read_model_config
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.weight_files import find_weights

BLOCK_SIZE = 8


class Probe:
    """A network with adapters, the base model being number 0, and the logits that it gives to sequences."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        adapters: list[Path] | None = None,
        executor: str = "mindgen",
        num_ranks: int = 1,
        num_stages: int = 1,
        open_runner: Callable[..., Any] = make_runner,
    ) -> None:
        cache = CacheShape(num_blocks=320, block_size=BLOCK_SIZE)
        model_config = read_model_config(folder)
        self._vocab_size = model_config.vocab_size
        limits = EngineConfig(executor=executor, tensor_parallel_size=num_ranks, pipeline_parallel_size=num_stages)
        spec = runner_spec(EngineSpec(model_config, dtype, limits), cache, 1025)
        self.runner = open_runner(spec, find_weights(folder, None, num_ranks))
        loaded = [
            load_adapter(path.name, path, self.runner.report.modules, self.runner.base_model) for path in adapters or []
        ]
        order = sorted(range(len(loaded)), key=lambda place: -loaded[place].max_rank())
        self._slots = [None, *(order.index(place) for place in range(len(loaded)))]
        self.layout = plan_slots([adapter.max_rank() for adapter in loaded], len(loaded), 64, 1000, 64)
        if adapters:
            self.runner.enable_lora(self.layout, [])
        for slot, place in enumerate(order):
            self.runner.write_adapter(slot, self.runner.pack_adapter(loaded[place]))
        self._blocks = BlockManager(cache.num_blocks, BLOCK_SIZE, enable_prefix_caching=False)

    def add(self, path: Path, layout: SlotLayout, moves: list[SlotMove]) -> None:
        """One more adapter, in the first slot of other slots."""
        self.layout = layout
        self.runner.enable_lora(layout, moves)
        adapter = load_adapter(path.name, path, self.runner.report.modules, self.runner.base_model)
        self.runner.write_adapter(0, self.runner.pack_adapter(adapter))
        places = {move.source: move.target for move in moves}
        self._slots = [None, *(places[slot] for slot in self._slots[1:]), 0]

    def open(self, token_ids: list[int], slot: int = 0) -> Sequence:
        sequence = make_sequence(0, token_ids, 80, vocab_size=self._vocab_size)
        sequence.request.adapter_slot = self._slots[slot]
        return sequence

    def close(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self._blocks.free(sequence)

    def advance(self, sequences: list[Sequence], counts: list[int] | None = None) -> np.ndarray:
        """Computes the next tokens of each sequence (all of them, or as many as counts says); their logits (B, V)."""
        counts = counts or [sequence.num_uncomputed_tokens for sequence in sequences]
        entries = [ScheduledSequence(sequence, count, 1) for sequence, count in zip(sequences, counts, strict=True)]
        for sequence, count in zip(sequences, counts, strict=True):
            num_tokens = sequence.num_computed_tokens + count
            if len(sequence.block_table) < self._blocks.num_needed(num_tokens):
                assert not self._blocks.grow(sequence, num_tokens)
        entries, batch = build_batch(entries, BLOCK_SIZE, self.layout)
        rows, order = self.runner.run(batch)
        logits = np.empty_like(rows)
        places = range(len(entries)) if order is None else order
        logits[[sequences.index(entries[place].sequence) for place in places]] = rows
        for sequence, count in zip(sequences, counts, strict=True):
            sequence.num_computed_tokens += count
        return logits

    def logits(self, prompts: list[list[int]], slots: list[int] | None = None) -> np.ndarray:
        """The logits (B, V) that follow the prompts, computed in one batch."""
        sequences = [self.open(prompt, slot) for prompt, slot in zip(prompts, slots or [0] * len(prompts), strict=True)]
        logits = self.advance(sequences)
        self.close(*sequences)
        return logits
