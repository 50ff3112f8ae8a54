"""Where adapters may be loaded from: below the roots, wherever links lead."""

from collections.abc import Sequence
from pathlib import Path

from mindgen.errors import ConfigError
from mindgen.server.errors import ApiError, bad_request


class AdapterRoots:
    """
    Args:
        folders: none of which means that nothing may be loaded.

    Raises:
        ConfigError: one is no folder.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._roots = [Path(folder).resolve() for folder in folders]
        for given, root in zip(folders, self._roots, strict=True):
            if not root.is_dir():
                raise ConfigError(f"server: adapter_roots: no such folder: {given}")

    def resolve(self, path: str) -> Path:
        """The folder that is meant; a relative path is one below the first root.

        Raises:
            ApiError: it, or a file of it, lies elsewhere, or it is no folder.
        """
        if not self._roots:
            raise ApiError(
                403, "permission_error", "the server was started without --adapter_roots", code="loading_disabled"
            )
        try:
            folder = (self._roots[0] / path).resolve()
            if not self._is_below(folder):
                raise bad_request(f"lora_path {path!r} lies outside the server's adapter roots", param="lora_path")
            if not folder.is_dir():
                raise bad_request(f"lora_path {path!r} is no folder", param="lora_path")
            stray = [each.name for each in folder.iterdir() if not self._is_below(each.resolve())]
        except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a loop of links, no permission
            raise bad_request(f"lora_path cannot be read: {error}", param="lora_path") from error
        if stray:
            raise bad_request(f"lora_path: its {stray[0]} lies outside the server's adapter roots", param="lora_path")
        return folder

    def _is_below(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)
