"""A folder whose subfolders are adapters: what comes is loaded, what changes is loaded anew, what goes is unloaded."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from mindgen.adapters.formats.lora_config import CONFIG_FILE
from mindgen.errors import AsleepError, MindgenError
from mindgen.server.adapters.life_cycle import AdapterLifeCycle
from mindgen.server.adapters.roots import Roots
from mindgen.server.errors import ApiError

FOLDER_OPTION = "adapter_folder"
_Signature = tuple[tuple[str, int, int], ...]  # of each file its name, size and time


class AdapterWatcher:
    """A subfolder is taken when two looks find it the same, so that none is read while it is being written.

    Args:
        folder: below which nothing but its own files counts, wherever links lead.
        say: is told of what cannot be loaded, in a line.

    Raises:
        ConfigError: there is no such folder.
    """

    def __init__(self, folder: str, seconds: float, adapters: AdapterLifeCycle, say: Callable[[str], None]) -> None:
        self._roots = Roots([folder], FOLDER_OPTION)
        self._folder, self._seconds = Path(folder), seconds
        self._adapters, self._say = adapters, say
        self._seen: dict[str, _Signature] = {}
        self._taken: dict[str, _Signature] = {}  # those that were loaded, or could not be
        self._loaded: dict[str, int] = {}  # which load of its name each is

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as unloading:
            while True:
                await self._look(unloading)
                await asyncio.sleep(self._seconds)

    async def _look(self, unloading: asyncio.TaskGroup) -> None:
        """Loads what has come; nothing waits for the requests of what is unloaded."""
        found = await asyncio.to_thread(self._signatures)
        for name in [name for name in self._taken if name not in found]:
            del self._taken[name]
            unloading.create_task(self._unload(name))
        for name, signature in found.items():
            if self._seen.get(name) == signature and self._taken.get(name) != signature:
                self._taken[name] = signature
                await self._load(name)
        self._seen = found

    async def _load(self, name: str) -> None:
        is_own = name in self._loaded and self._adapters.is_served(name, self._loaded[name])
        try:
            self._loaded[name] = await self._adapters.load(name, self._roots.resolve(name), is_own)
        except (ApiError, MindgenError) as error:
            if isinstance(error, AsleepError) or self._adapters.is_leaving(name):
                del self._taken[name]  # the next look finds it again
            else:
                self._say(f"adapter {name} in {self._folder} is not served: {error}")

    async def _unload(self, name: str) -> None:
        """Unless somebody else has done so, or has given the name to another."""
        if name in self._loaded:
            try:
                await self._adapters.unload(name, self._loaded.pop(name))
            except (ApiError, MindgenError) as error:
                self._say(f"adapter {name}: {error}")

    def _signatures(self) -> dict[str, _Signature]:
        found = {}
        for folder in sorted(path.parent for path in self._folder.glob(f"*/{CONFIG_FILE}")):
            try:
                states = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
            except OSError:  # it is just going
                continue
            found[folder.name] = tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
        return found
