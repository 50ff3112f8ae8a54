"""How many adapter slots the network has: for the adapters that there are, within the configuration and the memory."""

from mindgen.adapters.loader import Claim, read_claim
from mindgen.adapters.registry import AdapterRegistry, AdapterVersion
from mindgen.adapters.slot_layout import SlotLayout, plan_slots
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.memory_plan import lora_rank_bytes
from mindgen.errors import ConfigError
from mindgen.system.memory import free_memory, parse_size

_MIB = 2**20


class SlotPlanner:
    """Plans for the adapters that have a name, as many slots as EngineConfig allows.

    Args:
        is_in_host_memory: the slots; how much of a device's memory is free, nobody tells.
    """

    def __init__(self, spec: EngineSpec, adapters: AdapterRegistry, is_in_host_memory: bool) -> None:
        self._spec = spec
        self._adapters = adapters
        self._is_in_host_memory = is_in_host_memory
        self._claims: dict[AdapterVersion, Claim | None] = {}
        self._planned: dict[int, SlotLayout] = {}
        self._num_versions = adapters.num_versions  # that they were planned for

    @property
    def max_rank(self) -> int | None:
        return self._spec.config.max_lora_rank

    def sizes(self) -> list[int]:
        """What the slots take, in bytes, for each pipeline stage on all its ranks together.

        Raises:
            ConfigError: max_lora_rank has no room. An adapter that has none is refused when it is asked for.
        """
        layout = self._layout(self._ranks(), self.max_rank or 0)
        return [layout.num_ranks() * each for each in self._rank_bytes()]

    def first(self) -> SlotLayout:
        return self._plans().setdefault(0, self._layout(self._ranks(), self.max_rank or 0))

    def larger(self, layout: SlotLayout, rank: int) -> SlotLayout:
        """With a slot for an adapter of that rank, and room for as many adapters again, where there is memory for it:
        slots grow rarely, for the network is compiled again. Without new adapters the layout is as good as any.

        Raises:
            ConfigError: there is no memory for a slot as large.
        """
        plans = self._plans()
        if rank not in plans:
            is_known = layout in plans.values() and rank <= layout.max_rank
            plans[rank] = layout if is_known else self._plan_larger(layout, rank)
        return plans[rank]

    def _plan_larger(self, layout: SlotLayout, rank: int) -> SlotLayout:
        ranks, slot_bytes = [*self._ranks(), rank], sum(self._rank_bytes())
        free = free_memory() * self._spec.config.nnodes if self._is_in_host_memory else None
        for wanted in (ranks * 2, ranks, [rank]):
            planned = self._layout(wanted, rank)
            if free is None or planned.num_ranks() * slot_bytes <= free:
                is_larger = rank > layout.max_rank or planned.num_slots > layout.num_slots
                return planned if is_larger else layout
        if rank <= layout.max_rank:
            return layout
        taken = planned.num_ranks() * slot_bytes
        raise ConfigError(f"a slot for it takes {taken / _MIB:.0f} MiB, and {(free or 0) / _MIB:.0f} MiB are free")

    def _plans(self) -> dict[int, SlotLayout]:
        """By the rank that they were made for, as long as no adapter comes."""
        if self._num_versions != self._adapters.num_versions:
            self._num_versions = self._adapters.num_versions
            self._planned = {}
        return self._planned

    def _layout(self, ranks: list[int], needed: int) -> SlotLayout:
        config = self._spec.config
        max_ranks = parse_size(config.adapter_memory) // sum(self._rank_bytes())
        return plan_slots(ranks, config.max_loras or config.max_num_seqs, config.max_lora_rank, max_ranks, needed)

    def _ranks(self) -> list[int]:
        ranks = [claim.rank for claim in self._known_claims()]
        return ranks if self._spec.config.max_lora_rank is None else [*ranks, self._spec.config.max_lora_rank]

    def _rank_bytes(self) -> list[int]:
        has_tables = any(claim.has_tables for claim in self._known_claims())
        return lora_rank_bytes(self._spec, has_tables)

    def _known_claims(self) -> list[Claim]:
        versions = self._adapters.versions()
        if self._claims.keys() != set(versions):
            self._claims = {
                version: self._claims[version] if version in self._claims else read_claim(version)
                for version in versions
            }
        return [claim for claim in self._claims.values() if claim is not None]
