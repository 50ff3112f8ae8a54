"""What the base model is now, and what becomes of requests when weights change: it happens between two steps."""

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

from mindgen.adapters.pool import AdapterPool
from mindgen.adapters.registry import AdapterRegistry, AdapterVersion
from mindgen.engine.block_manager import BlockManager
from mindgen.engine.output_processor import OutputProcessor
from mindgen.engine.scheduler import Scheduler
from mindgen.engine.sequence import BaseVersion, Request
from mindgen.engine.update_options import InFlight
from mindgen.errors import AsleepError, ConfigError, WeightUpdateError
from mindgen.runner.spec import Runner

WEIGHTS, KV_CACHE = "weights", "kv_cache"
TAGS = (WEIGHTS, KV_CACHE)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Something that is to happen once no request that it concerns is half done.

    Attributes:
        make: does it; should it raise, nothing has changed.
        in_flight, max_staleness: as in UpdateOptions.
        reason: why requests are called off.
        base: what the base model is from then on; None if it stays.
        adapter: the version that takes an adapter's name; None if none does.
        done: gets the number of requests that were called off.
    """

    make: Callable[[], None]
    in_flight: InFlight
    reason: str
    max_staleness: int | None = None
    base: BaseVersion | None = None
    adapter: AdapterVersion | None = None
    done: "Future[int]" = field(default_factory=Future)

    @property
    def waits(self) -> bool:
        """An adapter's versions can be served side by side."""
        return self.in_flight == "finish" and self.adapter is None


class WeightControl:
    """
    Attributes:
        base: what the base model is.
        checksums: of its tensors, by the network's names.
        asleep: what has given its memory back.
        ended: requests that were called off, until somebody fetches them.
    """

    def __init__(
        self, runner: Runner, scheduler: Scheduler, output: OutputProcessor, blocks: BlockManager, pool: AdapterPool
    ) -> None:
        self._runner, self._scheduler, self._output, self._blocks, self._pool = runner, scheduler, output, blocks, pool
        self._waiting: deque[Change] = deque()
        self.base = BaseVersion()
        self.checksums: dict[str, str] = dict(runner.report.checksums)
        self.asleep: set[str] = set()
        self.ended: list[Request] = []

    def ask(self, change: Change) -> None:
        """Queues a change, which `settle` makes."""
        self._waiting.append(change)

    def withdraw(self, change: Change) -> None:
        """Forgets a change that has not been made."""
        if change in self._waiting:
            self._waiting.remove(change)
            change.done.set_exception(WeightUpdateError("who has asked for it waits no longer: it is called off"))

    def fail(self, error: BaseException) -> None:
        """Nothing that is asked for will happen any more."""
        while self._waiting:
            self._waiting.popleft().done.set_exception(error)

    def settle(self) -> None:
        """Makes the changes that requests in flight let happen now."""
        while self._waiting:
            change = self._waiting[0]
            if change.waits and any(request.has_joined for request in self._concerned(change)):
                self._scheduler.admits_new = False
                return
            self._waiting.popleft()
            try:
                change.make()
                aborted = self._move_on(change)
            except BaseException as error:
                change.done.set_exception(error)
            else:
                change.done.set_result(aborted)
        self._scheduler.admits_new = True

    def release_adapters(self, registry: AdapterRegistry) -> None:
        """Lets go of versions that no name stands for, and no request needs."""
        if not registry.num_superseded:
            return
        used = self._adapters_in_use()

        def release(version: AdapterVersion) -> bool:
            kept = registry.digests()
            if version in used or not self._pool.release(version, kept):
                return False
            if version.content is not None and version.content.digest not in kept:
                self._runner.drop_adapter(version.content.digest)
            return True

        registry.release_superseded(release)

    def take(self, received: dict[str, str]) -> None:
        """Puts staged tensors, of these checksums, in their place; weights that are away come back first."""
        self.wake([WEIGHTS])
        self._runner.commit_weights()
        self.checksums.update(received)

    def sleep(self, level: int) -> None:
        """Gives memory back: of the KV cache (1), or also of the weights (2), which a file keeps."""
        if KV_CACHE not in self.asleep:
            self._runner.drop_caches()
            self._blocks.forget_cached()
            self.asleep.add(KV_CACHE)
        if level == 2 and WEIGHTS not in self.asleep:
            self._runner.drop_weights()
            self.asleep.add(WEIGHTS)

    def wake(self, tags: Collection[str]) -> None:
        """
        Raises:
            CheckpointError: the weights are not what they were; the engine sleeps on.
        """
        if WEIGHTS in tags and WEIGHTS in self.asleep:
            self._runner.restore_weights()
        self.asleep.difference_update(tags)

    def require_awake(self) -> None:
        """Raises AsleepError."""
        if self.asleep:
            tags = " and ".join(sorted(self.asleep))
            raise AsleepError(f"the engine sleeps, without its {tags}: call wake_up() first")

    def _concerned(self, change: Change) -> list[Request]:
        """Requests that have not ended, and that use what changes."""
        every = dict.fromkeys(sequence.request for sequence in self._scheduler.unfinished())
        if change.adapter is None:
            return list(every)
        return [request for request in every if request.adapter_id == change.adapter.adapter_id]

    def _adapters_in_use(self) -> set[AdapterVersion]:
        requests = (sequence.request for sequence in self._scheduler.unfinished())
        return {request.adapter for request in requests if request.adapter is not None}

    def _move_on(self, change: Change) -> int:
        """Ends requests, or takes them along; returns how many were ended."""
        requests, kept, aborted = self._concerned(change), [], 0
        for request in requests:
            is_stale = _is_stale(request, change)
            if request.has_joined and (change.in_flight == "abort" or is_stale):
                self._output.finish_all(request, "abort", "stale" if is_stale else change.reason)
                self.ended.append(request)
                aborted += 1
            else:
                kept.append(request)
        if change.adapter is not None and change.in_flight == "finish":
            return aborted
        self._scheduler.restart([request for request in kept if request.has_joined])
        for request in kept:
            self._hand_over(request, change)
        if change.base is not None:
            self.base = change.base
            self._blocks.forget_cached()  # nobody will ask for what the old weights have computed
            self._pool.read_anew()
        return aborted

    def _hand_over(self, request: Request, change: Change) -> None:
        """To the new weights."""
        if change.base is None and change.adapter is None:
            return
        for sequence in request.sequences:
            sequence.close_era()
        request.base = change.base or request.base
        request.adapter = change.adapter or request.adapter


def _is_stale(request: Request, change: Change) -> bool:
    """Whether its first token is older than the change allows."""
    if change.max_staleness is None or not any(each.output_token_ids for each in request.sequences):
        return False
    eras = [sequence.eras[0] for sequence in request.sequences if sequence.eras]
    if change.adapter is not None:
        first = min([each.adapter_version or 0 for each in eras], default=request.adapter_version or 0)
        return change.adapter.weight_version - first > change.max_staleness
    first = min([each.base_version for each in eras], default=request.base.version)
    return change.base is not None and change.base.version - first > change.max_staleness


def check_level(level: int) -> None:
    if level not in (1, 2):
        raise ConfigError(f"sleep has the levels 1 (KV cache) and 2 (weights as well), not {level!r}")


def check_tags(tags: Collection[str] | None) -> Collection[str]:
    """All, if none are named."""
    unknown = [tag for tag in tags or () if tag not in TAGS]
    if unknown or isinstance(tags, str):
        raise ConfigError(f"wake_up takes a list of {' and '.join(TAGS)}, not {tags!r}")
    return TAGS if tags is None else tags
