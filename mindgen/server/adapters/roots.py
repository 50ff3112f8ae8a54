"""Where adapters and weights may be loaded from: below the roots, wherever links lead."""

from collections.abc import Sequence
from pathlib import Path

from mindgen.errors import ConfigError
from mindgen.server.errors import ApiError, bad_request


class Roots:
    """
    Args:
        folders: none of which means that nothing may be loaded.
        option: of the server, that they come from.
        param: of requests, which errors name.

    Raises:
        ConfigError: one is no folder.
    """

    def __init__(self, folders: Sequence[str], option: str = "adapter_roots", param: str = "lora_path") -> None:
        self._option, self._param = option, param
        self._roots = [Path(folder).resolve() for folder in folders]
        for given, root in zip(folders, self._roots, strict=True):
            if not root.is_dir():
                raise ConfigError(f"server: {option}: no such folder: {given}")

    def resolve(self, path: str) -> Path:
        """The folder that is meant; a relative path is one below the first root.

        Raises:
            ApiError: it, or a file of it, lies elsewhere, or it is no folder.
        """
        if not self._roots:
            message = f"the server was started without --{self._option}"
            raise ApiError(403, "permission_error", message, code="loading_disabled")
        try:
            folder = (self._roots[0] / path).resolve()
            if not self._is_below(folder):
                raise self._refused(f"{path!r} lies outside the server's {self._option}")
            if not folder.is_dir():
                raise self._refused(f"{path!r} is no folder")
            stray = [each.name for each in folder.iterdir() if not self._is_below(each.resolve())]
        except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a loop of links, no permission
            raise self._refused(f"cannot be read: {error}") from error
        if stray:
            raise self._refused(f"{path!r} has the file {stray[0]}, which lies outside the server's {self._option}")
        return folder

    def _refused(self, why: str) -> ApiError:
        return bad_request(f"{self._param} {why}", param=self._param)

    def _is_below(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)
