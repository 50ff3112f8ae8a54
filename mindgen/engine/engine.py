"""The engine: takes token ids in, gives token ids out, many requests at a time."""

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from mindgen.adapters.loader import AdapterWeights, load_adapter
from mindgen.adapters.pool import AdapterPool
from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.batch import build_batch
from mindgen.engine.block_manager import BlockManager
from mindgen.engine.config import EngineConfig
from mindgen.engine.runner import Runner
from mindgen.engine.sampler import Sampler
from mindgen.engine.sampling_row import SamplingRow
from mindgen.engine.scheduler import ScheduledSequence, Scheduler
from mindgen.engine.sequence import Sequence
from mindgen.errors import AdapterError, ConfigError, RequestError
from mindgen.kernels import plugin
from mindgen.layers.attention import CacheShape
from mindgen.model_config import ModelConfig
from mindgen.outputs import RequestMetrics
from mindgen.profiling import Profile
from mindgen.sampling_params import SamplingParams

_ITEM_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Engine:
    """Continuous batching over one network: requests join and leave at every step."""

    def __init__(
        self,
        folder: Path,
        model_config: ModelConfig,
        adapters: AdapterRegistry,
        dtype: str,
        config: EngineConfig,
    ) -> None:
        self.max_model_len = min(config.max_model_len or model_config.max_position, model_config.max_position)
        cache = CacheShape(_num_blocks(model_config, dtype, config, self.max_model_len), config.block_size)
        num_positions = max(self.max_model_len, config.max_num_batched_tokens) + 1
        self._model_config = model_config
        self._adapters = adapters
        self._config = config
        self._runner = Runner(folder, model_config, cache, num_positions, dtype, config.executor, config.num_threads)
        self._pool = AdapterPool(len(adapters.names()) + 1, self._load_adapter, self._runner.write_adapter)
        self._max_rank = 0  # until the first request for an adapter makes room for them
        self._block_manager = BlockManager(cache.num_blocks, cache.block_size)
        self._scheduler = Scheduler(config, self._block_manager)
        self._sampler = Sampler(plugin.load())
        self._num_requests = 0

    def add_request(self, token_ids: list[int], params: SamplingParams, adapter_id: str | None = None) -> Sequence:
        """Queues a request; the Sequence returned grows as `step` is called.

        Raises:
            RequestError: the prompt is empty or too long, or it or the parameters hold ids outside the vocabulary.
            UnknownAdapterError: there is no such adapter.
            AdapterError: the adapter cannot be served.
        """
        if not token_ids:
            raise RequestError("the prompt is empty: expected at least one token")
        if len(token_ids) >= self.max_model_len:
            raise RequestError(
                f"the prompt has {len(token_ids)} tokens, but the context of {self.max_model_len} "
                f"must also hold what is generated: shorten it to at most {self.max_model_len - 1}"
            )
        if not 0 <= min(token_ids) <= max(token_ids) < self._model_config.vocab_size:
            raise RequestError(f"the prompt has token ids outside the vocabulary of {self._model_config.vocab_size}")
        max_len = self.max_model_len
        if params.max_tokens is not None:
            max_len = min(len(token_ids) + params.max_tokens, max_len)
        if self._block_manager.num_needed(max_len) > self._block_manager.num_blocks:
            capacity = self._block_manager.num_blocks * self._config.block_size
            raise RequestError(f"the request may need {max_len} tokens of KV cache, of {capacity}: raise num_blocks")
        sequence = Sequence(
            request_id=self._num_requests,
            token_ids=list(token_ids),
            params=params,
            max_len=max_len,
            sampling_row=SamplingRow(
                params,
                token_ids,
                self._model_config.vocab_size,
                params.sample_seed(0, fallback=secrets.randbits(64)),
                eos_token_ids=self._model_config.eos_token_ids,
            ),
            metrics=RequestMetrics(arrival_time=time.perf_counter()),
            adapter_id=adapter_id,
            adapter_slot=self._adapter_slot(adapter_id),
        )
        self._num_requests += 1
        self._scheduler.add(sequence)
        return sequence

    def has_unfinished(self) -> bool:
        return self._scheduler.has_unfinished()

    def abort(self, sequence: Sequence) -> None:
        """Takes a request out, wherever it stands; a finished one is out already."""
        if sequence.finish_reason is None:
            self._scheduler.abort(sequence)

    def adapter_digest(self, adapter_id: str | None) -> str | None:
        """The digest of an adapter that a request has used; None for the base model."""
        return self._pool.digest(adapter_id)

    def step(self, profile: Profile | None = None) -> list[Sequence]:
        """Runs one batch; returns the sequences that got a new token."""
        if profile is None:
            return self._step(self._scheduler.schedule())
        scheduled = self._scheduler.schedule()
        with profile.step(sum(entry.num_tokens for entry in scheduled), len(scheduled)):
            return self._step(scheduled)

    def _step(self, scheduled: list[ScheduledSequence]) -> list[Sequence]:
        batch = build_batch(scheduled, self._config.block_size, self._pool.num_slots)
        logits = self._runner.run(batch)
        return self._postprocess([scheduled[place] for place in batch.order], logits)

    def _postprocess(self, entries: list[ScheduledSequence], logits: np.ndarray) -> list[Sequence]:
        for sequence, num_tokens in entries:
            sequence.num_computed_tokens += num_tokens
        # The logits of a chunk of a prompt answer nothing yet.
        ready = [place for place, (sequence, _) in enumerate(entries) if sequence.num_uncomputed_tokens == 0]
        advanced = [entries[place].sequence for place in ready]
        logits = logits if len(ready) == len(entries) else logits[ready]
        sampled = self._sampler.sample(logits, [sequence.sampling_row for sequence in advanced])
        for sequence, token in zip(advanced, sampled, strict=True):
            if token.error is not None:
                raise RequestError(f"request {sequence.request_id}: {token.error}")
            sequence.token_ids.append(token.token_id)
            sequence.sampling_row.append(token.token_id)
            self._finish_if_done(sequence)
        return advanced

    def _finish_if_done(self, sequence: Sequence) -> None:
        now = time.perf_counter()
        if sequence.metrics.first_token_time is None:
            sequence.metrics.first_token_time = now
        is_eos = sequence.token_ids[-1] in self._model_config.eos_token_ids
        if is_eos and not sequence.params.ignore_eos:
            sequence.finish_reason = "stop"
        elif len(sequence.token_ids) >= sequence.max_len:
            sequence.finish_reason = "length"
        else:
            return
        sequence.metrics.finished_time = now
        self._scheduler.finish(sequence)

    def _adapter_slot(self, adapter_id: str | None) -> int:
        if adapter_id is None:
            return self._pool.slot(None)
        self._adapters.folder(adapter_id)  # an unknown name must not cost the memory of all slots
        if self._max_rank == 0:
            self._max_rank = max([self._read_adapter(adapter_id).max_rank(), *self._servable_ranks()])
            self._runner.enable_lora(self._pool.num_slots, self._max_rank)
        return self._pool.slot(adapter_id)

    def _servable_ranks(self) -> Iterator[int]:
        """The ranks of all adapters that fit the model; the others are refused when a request asks for them.

        Their tensors are checked, for what a configuration alone claims must not decide how much memory is taken.
        """
        for name in self._adapters.names():
            with suppress(AdapterError):
                yield self._read_adapter(name).max_rank()

    def _read_adapter(self, adapter_id: str) -> AdapterWeights:
        return load_adapter(adapter_id, self._adapters.folder(adapter_id), self._runner.modules())

    def _load_adapter(self, adapter_id: str) -> AdapterWeights:
        adapter, room = self._read_adapter(adapter_id), self._max_rank
        if adapter.max_rank() > room:
            raise AdapterError(
                f"adapter {adapter_id} has rank {adapter.max_rank()}, there is room for {room}: start again"
            )
        return adapter


def _num_blocks(model: ModelConfig, dtype: str, config: EngineConfig, max_model_len: int) -> int:
    if config.num_blocks is not None:
        return config.num_blocks
    per_sequence = -(-max_model_len // config.block_size)
    token_bytes = 2 * model.num_layers * model.num_kv_heads * model.head_size * _ITEM_SIZES[dtype]
    affordable = int(config.kv_cache_gib * 2**30) // (token_bytes * config.block_size)
    if affordable < 1:
        raise ConfigError(f"engine: kv_cache_gib ({config.kv_cache_gib}) does not hold one block of KV cache")
    return max(per_sequence, min(affordable, per_sequence * config.max_num_seqs))
