"""Which adapters exist: names, and the folders and versions that they stand for."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mindgen.adapters.formats.peft import Adapter
from mindgen.errors import AdapterError, UnknownAdapterError
from mindgen.system.checks import shown
from mindgen.system.json_file import read_json_object
from mindgen.system.suggestion import did_you_mean

LIST_FILE = "lora_adapter.json"
# What the command line calls the base model, so that no adapter may be called that.
BASE_NAME = "base"
_CONFIG_FILE = "adapter_config.json"


@dataclass(eq=False, slots=True)
class AdapterVersion:
    """What a name stood for when a request came; it stays what it is when the name is given to another folder.

    Attributes:
        digest: of its content, once it has been read for the first time.
        content: of one that lies in no folder, but has come from a program.
        weight_version: that the program has given it; 0 for what was read from a folder.
    """

    adapter_id: str
    folder: Path
    version: int
    digest: str | None = None
    content: Adapter | None = None
    weight_version: int = 0


class AdapterRegistry:
    """Adapter names and what they stand for; nothing is loaded here, and the files are not looked at."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._num_versions = 0
        self._changing = threading.Lock()
        self._superseded: list[AdapterVersion] = []
        self._adapters: dict[str, AdapterVersion] = {}
        for name, folder in folders.items():
            self.add(name, folder)

    @classmethod
    def read(cls, path: Path) -> "AdapterRegistry":
        """From a lora_adapter.json, {"A1": "path", ...}, the folder that holds it, or a folder of adapter folders.

        Paths in the file are relative to it; in a folder without it, every adapter is called like its own folder.

        Raises:
            AdapterError: there is no such list, it is malformed, or an adapter has the base model's name.
        """
        if path.is_dir() and not (path / LIST_FILE).is_file():
            found = {file.parent.name: file.parent for file in sorted(path.glob(f"*/{_CONFIG_FILE}"))}
            if not found:
                raise AdapterError(f"{path} has neither {LIST_FILE} nor folders with {_CONFIG_FILE}")
            return cls(found)
        path = path / LIST_FILE if path.is_dir() else path
        raw = read_json_object(path, AdapterError)
        if not all(isinstance(folder, str) and folder for folder in raw.values()):
            raise AdapterError(f'{path} must list adapters like {{"A1": "path/of/its/folder"}}')
        try:
            return cls({name: path.parent / folder for name, folder in raw.items()})
        except AdapterError as error:
            raise AdapterError(f"{path}: {error}") from error

    @property
    def num_versions(self) -> int:
        """How many there have been, so that it tells whether one has come."""
        return self._num_versions

    def names(self) -> list[str]:
        return list(self._adapters)

    def digests(self) -> set[str | None]:
        """Of the contents that names stand for, as far as they are known."""
        return {version.digest for version in self.versions()}

    def versions(self) -> list[AdapterVersion]:
        return list(self._adapters.values())

    def get(self, adapter_id: str) -> AdapterVersion:
        """What the name stands for now.

        Raises:
            UnknownAdapterError: there is no adapter of that name.
        """
        if not isinstance(adapter_id, str):
            raise UnknownAdapterError(f"adapter_id must be a text, not {shown(adapter_id)}")
        if adapter_id not in self._adapters:
            hint = did_you_mean(adapter_id, self._adapters)
            first = list(self._adapters)[:20]
            known = ", ".join(first) or "none"
            more = f" and {len(self._adapters) - len(first)} more" if len(first) < len(self._adapters) else ""
            raise UnknownAdapterError(f"unknown adapter_id {adapter_id!r}{hint}; known adapters: {known}{more}")
        return self._adapters[adapter_id]

    def add(self, adapter_id: str, folder: Path) -> AdapterVersion:
        """A new name, or a new version of one: requests that came before keep the one they asked for.

        Raises:
            AdapterError: it is the base model's name, or empty.
        """
        _check_name(adapter_id)
        return self._put(AdapterVersion(adapter_id, folder, 0))

    def add_content(self, adapter_id: str, content: Adapter, weight_version: int) -> AdapterVersion:
        """As `add`, of an adapter that lies in no folder.

        Raises:
            AdapterError: it is the base model's name, or empty.
        """
        _check_name(adapter_id)
        return self._put(AdapterVersion(adapter_id, content.folder, 0, content.digest, content, weight_version))

    def _put(self, version: AdapterVersion) -> AdapterVersion:
        with self._changing:
            before = self._adapters.get(version.adapter_id)
            if before is not None:
                self._superseded.append(before)
            self._num_versions += 1
            version.version = self._num_versions
            self._adapters[version.adapter_id] = version
        return version

    @property
    def num_superseded(self) -> int:
        """Versions that have no name any more, and are not released yet."""
        return len(self._superseded)

    def release_superseded(self, release: Callable[[AdapterVersion], bool]) -> None:
        """Offers these versions; those that are released, so that it returns True, are not offered again."""
        released = {version for version in list(self._superseded) if release(version)}
        with self._changing:
            self._superseded = [version for version in self._superseded if version not in released]

    def remove(self, adapter_id: str) -> None:
        """Requests that came before keep it.

        Raises:
            UnknownAdapterError: there is no adapter of that name.
        """
        removed = self.get(adapter_id)
        with self._changing:
            del self._adapters[adapter_id]
            self._superseded.append(removed)


def _check_name(adapter_id: str) -> None:
    if adapter_id == BASE_NAME or not adapter_id:
        raise AdapterError(f"no adapter can be named {adapter_id!r}, which stands for the base model; rename it")
