"""Which adapters exist: the names and folders of a lora_adapter.json."""

import difflib
from pathlib import Path

from mindgen.checkpoint.json_file import read_json_object
from mindgen.errors import AdapterError, UnknownAdapterError

LIST_FILE = "lora_adapter.json"
# What the command line calls the base model, so that no adapter may be called that.
BASE_NAME = "base"


class AdapterRegistry:
    """Adapter names and the folders they stand for; nothing is loaded here."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders

    @classmethod
    def from_json(cls, path: Path) -> "AdapterRegistry":
        """From a lora_adapter.json, {"A1": "path", ...}, or the folder that holds it; paths are relative to the file.

        Raises:
            AdapterError: the file is missing or malformed, or an adapter has the base model's name.
        """
        if path.is_dir():
            path = path / LIST_FILE
        raw = read_json_object(path, AdapterError)
        if not all(isinstance(folder, str) and folder for folder in raw.values()):
            raise AdapterError(f'{path} must list adapters like {{"A1": "path/of/its/folder"}}')
        if BASE_NAME in raw:
            raise AdapterError(
                f"{path}: no adapter can be named {BASE_NAME!r}, which stands for the base model; rename it"
            )
        return cls({name: path.parent / folder for name, folder in raw.items()})

    def names(self) -> list[str]:
        return list(self._folders)

    def slots_size(self) -> int:
        """About how many bytes a slot for each adapter and one for the base model take, all as large as the largest."""
        sizes = [file.stat().st_size for folder in self._folders.values() for file in folder.glob("adapter_model.*")]
        return (len(self._folders) + 1) * max(sizes, default=0)

    def folder(self, adapter_id: str) -> Path:
        """The adapter's folder.

        Raises:
            UnknownAdapterError: there is no adapter of that name.
        """
        if adapter_id not in self._folders:
            close = difflib.get_close_matches(adapter_id, self._folders, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            known = ", ".join(self._folders) or "none"
            raise UnknownAdapterError(f"unknown adapter_id {adapter_id!r}{hint}; known adapters: {known}")
        return self._folders[adapter_id]
