"""Which adapters exist: names, and the folders and versions that they stand for."""

from dataclasses import dataclass
from pathlib import Path

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
    """

    adapter_id: str
    folder: Path
    version: int
    digest: str | None = None


class AdapterRegistry:
    """Adapter names and what they stand for; nothing is loaded here, and the files are not looked at."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._num_versions = 0
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
        if adapter_id == BASE_NAME or not adapter_id:
            raise AdapterError(f"no adapter can be named {adapter_id!r}, which stands for the base model; rename it")
        self._num_versions += 1
        self._adapters[adapter_id] = AdapterVersion(adapter_id, folder, self._num_versions)
        return self._adapters[adapter_id]

    def remove(self, adapter_id: str) -> None:
        """Requests that came before keep it.

        Raises:
            UnknownAdapterError: there is no adapter of that name.
        """
        self.get(adapter_id)
        del self._adapters[adapter_id]
