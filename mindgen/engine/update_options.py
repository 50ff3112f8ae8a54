"""How new weights are to be taken, and what is said of them afterwards."""

import json
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from mindgen.errors import ConfigError, WeightUpdateError
from mindgen.system.checks import shown
from mindgen.system.plain_json import plain
from mindgen.system.suggestion import did_you_mean
from mindgen.weights.mindformers_fused import LAYOUT_KEY, LAYOUTS, Layout

BASE = "base"  # the target that is no adapter
InFlight: TypeAlias = Literal["finish", "abort", "continue"]
IN_FLIGHT: tuple[str, ...] = get_args(InFlight)


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """
    Attributes:
        in_flight: what becomes of requests that have begun: they "finish" on the old weights (of the base model there
            is one copy, so new requests wait until they have; an adapter's versions lie side by side), they are
            called off ("abort") with what they have, or they "continue": their text stays, and is read again by the
            new weights.
        max_staleness: so many versions may the first token of a request be older than the new weights; if it is
            older, the request is called off. None is any number.
        allow_nan: take tensors of the base model that are not finite; an adapter's always must be.
        expect_change: refuse weights that are the old ones.
        expect_all: refuse a set that leaves out tensors of the base model.
        qkv_concat_layout: "plain" or "grouped": in which order the rows of MindFormers' fused weights of the base model
            lie, as in mindgen.weights.mindformers_fused; None if there are none.
        adapter_config: the content of an adapter_config.json; None is that of the adapter's version before.

    Raises:
        ConfigError: a value is none of these.
    """

    in_flight: InFlight = "finish"
    max_staleness: int | None = None
    allow_nan: bool = False
    expect_change: bool = True
    expect_all: bool = False
    qkv_concat_layout: Layout | None = None
    adapter_config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.in_flight not in IN_FLIGHT:
            raise ConfigError(f"in_flight must be one of {', '.join(IN_FLIGHT)}, not {self.in_flight!r}")
        limit = self.max_staleness
        if limit is not None and (type(limit) is not int or limit < 0):
            raise ConfigError(f"max_staleness must be a number of versions, 0 or more, or None, not {limit!r}")
        for name in ("allow_nan", "expect_change", "expect_all"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.qkv_concat_layout not in (None, *LAYOUTS):
            raise ConfigError(f"{LAYOUT_KEY} must be one of {', '.join(LAYOUTS)}, not {self.qkv_concat_layout!r}")
        if self.adapter_config is not None:
            object.__setattr__(self, "adapter_config", _plain_config(self.adapter_config))

    @classmethod
    def read(cls, options: dict[str, Any]) -> "UpdateOptions":
        """Raises ConfigError where there is no such option."""
        names = [each.name for each in fields(cls)]
        for name in options:
            if name not in names:
                raise ConfigError(f"update_weights has no option {name!r}{did_you_mean(name, names)}")
        return cls(**options)

    def check_target(self, target: str) -> None:
        """Raises WeightUpdateError where an option would be of no effect."""
        if target == BASE and self.adapter_config is not None:
            raise WeightUpdateError(f"adapter_config goes with an adapter's name as target, and the target is {BASE!r}")
        for name in ("allow_nan", "expect_all", LAYOUT_KEY):
            if target != BASE and getattr(self, name):
                raise WeightUpdateError(f"{name} goes with the target {BASE!r}, and the target is adapter {target!r}")


def _plain_config(config: Any) -> dict[str, Any]:
    """As JSON has it: PEFT's own LoraConfig(...).to_dict() holds sets."""
    if not isinstance(config, dict):
        raise ConfigError(f"adapter_config must be a dict, not {shown(config)}")
    try:
        return json.loads(json.dumps(config, default=plain))  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"adapter_config must be as an adapter_config.json: {error}") from error


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """Where new weights have come to.

    Attributes:
        target: "base" or an adapter's name.
        version: of the target from now on.
        tensors, bytes_received: that have come.
        bytes_bound: that the network's ranks have of them, in the dtype of the network.
        modules: that have new weights.
        checksum_before, checksum_after: of all the target's weights; of an adapter its digest. None for no adapter.
        missing: tensors of the network that have not come, and stay.
        ignored: tensors that have come and that follow from others.
        aborted: requests that were called off.
        seconds: from the first tensor until the weights were in their place.
    """

    target: str
    version: int
    tensors: int
    bytes_received: int
    bytes_bound: int
    modules: int
    checksum_before: str | None
    checksum_after: str
    missing: list[str]
    ignored: list[str]
    aborted: int
    seconds: float

    @property
    def gigabytes_per_second(self) -> float:
        return self.bytes_received / self.seconds / 1e9


def next_version(target: str, current: int, asked: int | None) -> int:
    """Raises WeightUpdateError unless the version goes up."""
    if asked is None:
        return current + 1
    if type(asked) is not int or asked <= current:
        raise WeightUpdateError(
            f"{target}: the new weights have version {asked!r}, and version {current} is served: versions go up"
        )
    return asked
