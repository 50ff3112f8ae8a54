"""The engine: takes token ids in, gives token ids out, many requests at a time."""

import secrets
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace

from mindgen.adapters.loader import AdapterWeights, load_version
from mindgen.adapters.pool import AdapterPool
from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.adapters.registry import AdapterRegistry, AdapterVersion
from mindgen.engine.adapter_update import AdapterUpdate
from mindgen.engine.base_update import BaseUpdate
from mindgen.engine.batch import build_batch
from mindgen.engine.beam_search import BeamSearch
from mindgen.engine.block_manager import BlockManager
from mindgen.engine.deadlines import Deadlines
from mindgen.engine.drafts import draft_tokens
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.guide import Guide
from mindgen.engine.memory_plan import MemoryPlan
from mindgen.engine.metrics import EngineMetrics, adapters_of
from mindgen.engine.output_processor import OutputProcessor
from mindgen.engine.sampler import Sampler
from mindgen.engine.sampling_row import SamplingRow, Vocabulary
from mindgen.engine.schedule import Schedule
from mindgen.engine.scheduler import Scheduler
from mindgen.engine.sequence import BaseVersion, Request, Sequence
from mindgen.engine.slot_planner import SlotPlanner
from mindgen.engine.swap_space import SwapSpace
from mindgen.engine.update_options import UpdateOptions
from mindgen.engine.weight_control import WeightControl
from mindgen.errors import MindgenError, RequestError, WorkerError
from mindgen.kernels import plugin
from mindgen.outputs import RequestMetrics
from mindgen.runner.profiling import Profile
from mindgen.runner.spec import Runner
from mindgen.sampling_params import SamplingParams
from mindgen.system.memory import parse_size
from mindgen.weights.checksum import network_checksum
from mindgen.weights.lora_names import TensorNames

_READ_SECONDS = 0.05  # how long a step waits for adapters if there is nothing else to do


class Engine:
    """Continuous batching over one network: requests join and leave at every step.

    Args:
        runner: of the network, which the engine closes.
        memory_plan: that the runner was made by.
        slots: plans the adapters' places.

    Attributes:
        memory_plan: where the memory goes.
        weights: what the base model is, and when it changes.
    """

    def __init__(
        self,
        spec: EngineSpec,
        runner: Runner,
        adapters: AdapterRegistry,
        memory_plan: MemoryPlan,
        slots: SlotPlanner,
    ) -> None:
        self.max_model_len = memory_plan.max_model_len
        self.memory_plan = memory_plan
        self._spec = spec
        self._vocabulary = Vocabulary(spec.model.vocab_size, spec.model.eos_token_ids)
        self._adapters = adapters
        self._runner = runner
        self._tensor_names, self._update_names = TensorNames(), TensorNames()
        self._pool = AdapterPool(slots, runner, self._read_adapter, parse_size(spec.config.host_adapter_memory))
        self._blocks = BlockManager(memory_plan.num_blocks, spec.config.block_size, spec.config.enable_prefix_caching)
        self._swap_space = SwapSpace(runner)
        self._scheduler = Scheduler(
            spec.config, self._blocks, self.memory_plan.num_swap_blocks, draft_tokens, self._pool
        )
        self._output = OutputProcessor(Sampler(plugin.load()), self._scheduler, self._blocks, spec.model.eos_token_ids)
        self.weights = WeightControl(runner, self._scheduler, self._output, self._blocks, self._pool)
        self.weights.base = BaseVersion(network_checksum(repr(spec.model), self.weights.checksums))
        self._deadlines = Deadlines()
        self._num_requests = 0

    def add_request(
        self,
        token_ids: list[int],
        params: SamplingParams,
        adapter_id: str | None = None,
        matcher: Guide | None = None,
        bad_word_token_ids: Iterable[list[int]] = (),
    ) -> Request:
        """Queues a request; the Request returned grows as `step` is called.

        Args:
            matcher: of the grammar that params ask for.
            bad_word_token_ids: the tokens of each of params.bad_words.

        Raises:
            RequestError: the prompt is empty or too long, or it or the parameters hold ids outside the vocabulary.
            QueueFullError: too many requests wait.
            UnknownAdapterError: there is no such adapter.
        """
        self.weights.require_awake()
        max_len = self._check_length(token_ids, params)
        adapter = None if adapter_id is None else self._adapters.get(adapter_id)
        now = time.perf_counter()
        request = Request(
            request_id=self._num_requests,
            prompt_token_ids=list(token_ids),
            params=params,
            max_len=max_len,
            metrics=RequestMetrics(arrival_time=now),
            base=self.weights.base,
            adapter=adapter,
            deadline=None if params.deadline_seconds is None else now + params.deadline_seconds,
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
            beam_search=BeamSearch.of(params, max_len - len(token_ids), self._spec.model.eos_token_ids),
        )
        request.sequences = self._sequences(request, matcher, list(bad_word_token_ids))
        request.num_unfinished = len(request.sequences)
        self._scheduler.add(request)
        self._num_requests += 1
        if adapter is not None:
            self._pool.count(adapter, requests=1)
        self._deadlines.add(request)
        return request

    def close(self) -> None:
        """Ends the other ranks, if there are any; nothing can be asked for afterwards."""
        self.weights.fail(WorkerError("the model was closed"))
        self._runner.close()

    def settle(self) -> None:
        """What is asked of the weights, as far as it can be done now; between two steps."""
        self.weights.settle()
        self.weights.release_adapters(self._adapters)

    def has_unfinished(self) -> bool:
        """Whether a step has something to do."""
        if self.weights.asleep:
            return bool(self.weights.ended) or self.seconds_of_sleep() == 0
        return bool(self.weights.ended) or self._scheduler.has_unfinished()

    def seconds_of_sleep(self) -> float | None:
        """Until a deadline of a request that waits for the end of the night; None for any time."""
        return self._deadlines.seconds_left() if self.weights.asleep else None

    def begin_update(self, adapter_id: str | None, options: UpdateOptions) -> BaseUpdate | AdapterUpdate:
        """New weights for the base model, or for an adapter."""
        if adapter_id is None:
            return BaseUpdate(self._runner, self._spec, self.weights.checksums, options.qkv_concat_layout)
        before = self._adapters.get(adapter_id) if adapter_id in self._adapters.names() else None
        most_bytes = parse_size(self._spec.config.host_adapter_memory)
        return AdapterUpdate(adapter_id, before, self._runner, self._update_names, most_bytes)

    def discard_weights(self) -> None:
        """Forgets what has been staged of an update that is not finished."""
        self._runner.discard_weights()

    def abort(self, request: Request) -> None:
        """Ends a request, wherever it stands; what it has so far stays."""
        self._output.finish_all(request, "abort")
        self._swap_space.forget_unwanted()

    def fail(self, request: Request, error: MindgenError) -> None:
        """Ends a request for what went wrong with it alone."""
        self._output.fail(request, error)
        self._swap_space.forget_unwanted()

    def stop(self, sequence: Sequence, stop_text: str, num_tokens: int) -> None:
        """Ends a sequence at its first num_tokens, whose text has come to a stop text; a step may have gone beyond."""
        if sequence.finish_reason is None:
            self._output.finish(sequence, "stop")
        sequence.finish_reason, sequence.stop_reason = "stop", stop_text
        sequence.cut(num_tokens)

    def adapter_status(self, version: AdapterVersion) -> AdapterStatus:
        return self._pool.status(version)

    def release_adapters(self) -> int:
        """Gives back the memory of adapters that no name stands for any more, but for those in use, of which it returns
        the number."""
        self.weights.release_adapters(self._adapters)
        return self._adapters.num_superseded

    def metrics(self) -> EngineMetrics:
        scheduler, counters, blocks = self._scheduler, self._output.counters, self._blocks
        return EngineMetrics(
            scheduler.num_running, scheduler.num_waiting, counters.finished, counters.failed, counters.prompt_tokens,
            counters.cached_prompt_tokens, counters.generated_tokens, counters.preemptions,
            blocks.num_blocks, blocks.num_blocks - blocks.num_free, self._pool.metrics(),
            *adapters_of(scheduler.unfinished()),
        )  # fmt: skip

    def reset_prefix_cache(self) -> None:
        """Forgets what finished requests have computed, as after a change of weights."""
        self._blocks.forget_cached()

    def step(self, profile: Profile | None = None) -> list[Request]:
        """Runs one batch; returns the requests with a new token, or an end."""
        changed, self.weights.ended = self.weights.ended, []
        changed += self._abort_expired()
        if self.weights.asleep:
            return changed
        schedule = self._scheduler.schedule()
        self._output.counters.preemptions += schedule.num_preempted
        for request, error in schedule.failed:
            self._output.fail(request, error)
            changed.append(request)
        if schedule.entries:
            recording = nullcontext() if profile is None else profile.step(schedule.num_tokens, len(schedule.entries))
            with recording:
                changed += self._run(schedule)
        elif not changed:
            self._pool.wait(_READ_SECONDS)
        self._swap_space.forget_unwanted()
        return changed

    def check_integrity(self) -> None:
        """Raises AssertionError unless scheduler, blocks, swap space and adapter slots agree with each other."""
        self._scheduler.check_integrity()
        self._swap_space.check_integrity(self._scheduler.unfinished())
        self._pool.check_integrity(self._scheduler.pinned_slots())

    def _run(self, schedule: Schedule) -> list[Request]:
        now = time.perf_counter()
        for entry in schedule.entries:
            if entry.sequence.request.metrics.scheduled_time is None:
                entry.sequence.request.metrics.scheduled_time = now
        self._swap_space.move(schedule)
        if schedule.copies:
            self._runner.copy_blocks(schedule.copies)
        entries, batch = build_batch(schedule.entries, self._spec.config.block_size, self._pool.layout)
        logits, order = self._runner.run(batch)
        for entry in entries:
            if entry.sequence.request.adapter is not None:
                self._pool.count(entry.sequence.request.adapter, tokens=entry.num_tokens)
        return self._output.process(entries if order is None else [entries[place] for place in order], logits)

    def _abort_expired(self) -> list[Request]:
        expired = self._deadlines.expired()
        for request in expired:
            self._output.finish_all(request, "abort", "deadline")
        return expired

    def _check_length(self, token_ids: list[int], params: SamplingParams) -> int:
        """How many tokens prompt and output may come to have."""
        if not token_ids:
            raise RequestError("the prompt is empty: expected at least one token")
        if len(token_ids) >= self.max_model_len:
            raise RequestError(
                f"the prompt has {len(token_ids)} tokens, but the context of {self.max_model_len} "
                f"must also hold what is generated: shorten it to at most {self.max_model_len - 1}"
            )
        if len(token_ids) + len(params.forced_token_ids) > self.max_model_len:
            raise RequestError(
                f"the prompt has {len(token_ids)} tokens and forced_token_ids {len(params.forced_token_ids)}, "
                f"more than the context of {self.max_model_len}: shorten them"
            )
        if not 0 <= min(token_ids) <= max(token_ids) < self._spec.model.vocab_size:
            raise RequestError(f"the prompt has token ids outside the vocabulary of {self._spec.model.vocab_size}")
        max_len = self.max_model_len
        if params.max_tokens is not None:
            max_len = min(len(token_ids) + params.max_tokens, max_len)
        if self._blocks.num_needed(max_len) > self._blocks.num_blocks:
            capacity = self._blocks.num_blocks * self._spec.config.block_size
            raise RequestError(f"the request may need {max_len} tokens of KV cache, of {capacity}: raise num_blocks")
        return max_len

    def _sequences(
        self, request: Request, matcher: Guide | None, bad_word_token_ids: list[list[int]]
    ) -> list[Sequence]:
        params = request.params
        if matcher is not None and params.use_beam_search:
            raise RequestError("guided output and use_beam_search do not go together: leave one out")
        if params.num_sequences > params.n and params.logprobs is None and not params.use_beam_search:
            params = replace(params, logprobs=0)  # to tell which outputs are the likeliest
        fallback_seed = secrets.randbits(64)
        return [
            Sequence(
                request,
                index,
                list(request.prompt_token_ids),
                SamplingRow(
                    params,
                    request.prompt_token_ids,
                    self._vocabulary,
                    params.sample_seed(index, fallback_seed),
                    bad_word_token_ids,
                ),
                matcher if matcher is None or index == 0 else matcher.copy(),
            )
            for index in range(1 if params.use_beam_search else params.num_sequences)
        ]

    def _read_adapter(self, version: AdapterVersion) -> AdapterWeights:
        return load_version(version, self._runner.report.modules, self._runner.base_model, self._tensor_names)
