"""Which names clients may ask for, and how many requests each adapter has."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from mindgen.adapters.registry import BASE_NAME
from mindgen.server.adapters.names import check_names
from mindgen.server.errors import bad_request, model_not_found
from mindgen.system.suggestion import did_you_mean


@dataclass(eq=False, slots=True)
class Adapter:
    """A name that is served.

    Attributes:
        created: when it came, in seconds since 1970.
        num_users: requests that have it now.
        load: tells what has been loaded under one name at different times apart.
    """

    name: str
    load: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    num_users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self) -> None:
        self.num_users += 1
        self.idle.clear()

    def leave(self) -> None:
        self.num_users -= 1
        if self.num_users == 0:
            self.idle.set()


class Catalog:
    """Belongs to one event loop.

    Args:
        base: the base model's name.

    Raises:
        ConfigError: an adapter has a name that is not for adapters.
    """

    def __init__(self, base: str, adapters: Collection[str]) -> None:
        check_names(base, adapters)
        self.base = base
        self._adapters = {name: Adapter(name) for name in adapters}
        self._leaving: set[str] = set()
        self._num_loads = 0

    def adapters(self) -> list[Adapter]:
        return list(self._adapters.values())

    def has(self, name: str, load: int | None = None) -> bool:
        """
        Args:
            load: that it has to be of; None is any.
        """
        return name in self._adapters and load in (None, self._adapters[name].load)

    def find(self, model: str | None, adapter_id: str | None = None) -> Adapter | None:
        """The adapter that a request asks for by either name; None for the base model.

        Raises:
            ApiError: there is no such model, or the names are those of two.
        """
        by_model = self._named("model", model)
        by_id = self._named("adapter_id", adapter_id)
        if adapter_id is not None and by_model is not None and by_model is not by_id:
            raise bad_request(
                f"model names the adapter {model!r}, and adapter_id {adapter_id!r}: leave one out", param="adapter_id"
            )
        return by_id or by_model

    def add(self, name: str) -> int:
        """A new name, or something new under one that there is; returns which load it is of."""
        self._num_loads += 1
        self._adapters.setdefault(name, Adapter(name)).load = self._num_loads
        return self._num_loads

    def remove(self, name: str) -> Adapter:
        """Requests that have it keep it, and no others get it; its name is nobody else's until `free`."""
        self._leaving.add(name)
        return self._adapters.pop(name)

    def is_leaving(self, name: str) -> bool:
        """Whether it has been removed, and its name is not free yet."""
        return name in self._leaving

    def free(self, name: str) -> None:
        self._leaving.discard(name)

    def _named(self, field_name: str, name: str | None) -> Adapter | None:
        if name is None or name == self.base or (field_name == "adapter_id" and name == BASE_NAME):
            return None
        if name not in self._adapters:
            raise model_not_found(name, did_you_mean(name, [self.base, *self._adapters]))
        return self._adapters[name]
