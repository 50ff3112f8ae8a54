"""Digests of adapters that nobody has used yet, from their files."""

import asyncio
import time
from collections.abc import Callable

from mindgen.adapters.formats.peft import read_adapter
from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.errors import MindgenError


class AdapterDigests:
    """Belongs to one event loop. What has answered knows its digest, and needs no files.

    Args:
        list_adapters: how all adapters stand.
    """

    def __init__(self, list_adapters: Callable[[], list[AdapterStatus]]) -> None:
        self._list_adapters = list_adapters
        self._found: dict[str, tuple[int, str | None]] = {}  # by name, of the version that it had

    def known(self, status: AdapterStatus) -> str | None:
        """None as long as it has not been read, and where its files cannot be."""
        version, digest = self._found.get(status.adapter_id, (0, None))
        return status.digest or (digest if version == status.version else None)

    async def of(self, status: AdapterStatus) -> str | None:
        """None where its files cannot be read."""
        known = self.known(status)
        if known is not None:
            return known
        digest = await asyncio.to_thread(_read, status)
        self._found[status.adapter_id] = status.version, digest
        return digest

    async def read_all(self) -> None:
        """One after the other, and no more than half of the time, which requests may need."""
        for status in await asyncio.to_thread(self._list_adapters):
            began = time.monotonic()
            await self.of(status)
            await asyncio.sleep(time.monotonic() - began)


def _read(status: AdapterStatus) -> str | None:
    try:
        return read_adapter(status.folder).digest
    except (MindgenError, OSError):
        return None
