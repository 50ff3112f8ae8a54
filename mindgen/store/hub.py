"""Models of a hub, by ORG/NAME or ORG/NAME@REVISION, through huggingface_hub, whose settings and cache hold."""

import re
from pathlib import Path
from typing import Any

from mindgen.errors import ModelError
from mindgen.weights.config_file import CONFIG_FILE
from mindgen.weights.formats import gguf
from mindgen.weights.weight_format import weight_formats

_NAME = re.compile(r"(?P<repository>[\w][\w.-]*/[\w][\w.-]*)(/(?P<file>[\w.-]+\.gguf))?(@(?P<revision>[\w./-]+))?")
_TEXTS = (
    "*.json", "merges.txt", "vocab.txt", "*.model", "*.tiktoken", "*.jinja", "additional_chat_templates/*",
)  # fmt: skip
_HOW_TO_CHOOSE = "add the name of one .gguf, as ORG/NAME/FILE.gguf, or fetch one of another kind and name its file"
_NEVER = ("*.h5", "*.msgpack", "*.onnx", "onnx/*", "original/*", "runs/*")


def is_hub_name(name: str) -> bool:
    """Whether that could be a model of a hub, and not a path."""
    return _NAME.fullmatch(name) is not None


def pull_from_hub(name: str) -> Path:
    """The folder of the model, or its GGUF file, in the hub's cache; fetched unless it is there.

    Raises:
        ModelError: it cannot be fetched; the message says why in one line.
    """
    match = _NAME.fullmatch(name)
    assert match is not None
    wanted = {"repo_id": match["repository"], "revision": match["revision"]}
    if match["file"] is not None:
        return _fetch(name, "hf_hub_download", **wanted, filename=match["file"])
    for weights in _weight_patterns():
        folder = _fetch(
            name, "snapshot_download", **wanted, allow_patterns=[*_TEXTS, *weights], ignore_patterns=list(_NEVER)
        )
        if any(file for pattern in weights for file in folder.glob(pattern)):
            return folder
    cached = [each.name for each in folder.glob("*")]  # of an earlier call, which counts while offline
    file = _only_file(name, cached) or _only_file(name, _ask(name, "list_repo_files", **wanted))
    if file is None:
        raise ModelError(f"{name} has no weights that mindgen reads: expected {', '.join(weight_formats())}")
    folder = _fetch(name, "snapshot_download", **wanted, allow_patterns=[*_TEXTS, file])
    is_folder = (folder / CONFIG_FILE).is_file() and not file.endswith(gguf.FORMAT.suffix)
    return folder if is_folder else folder / file


def _only_file(name: str, files: list[str]) -> str | None:
    """The file that has a whole model, of a kind that is not cut into several; None where there is none."""
    for kind in (each for each in weight_formats().values() if each.index_file is None):
        ending = kind.suffix if kind.has_any_name or kind.is_whole_model else kind.model_file
        found = sorted(each for each in files if "/" not in each and each.endswith(ending))
        if len(found) > 1:
            raise ModelError(f"{name} has several models, {', '.join(found)}: {_HOW_TO_CHOOSE}")
        if found:
            return found[0]
    return None


def _weight_patterns() -> list[list[str]]:
    """Of what a repository may hold, the preferred kind first: a second one is fetched only where there is no first."""
    kinds = [each for each in weight_formats().values() if each.index_file is not None]
    return [[f"{each.model_file.partition('.')[0]}*{each.suffix}"] for each in kinds]


def _fetch(name: str, function: str, **arguments: Any) -> Path:
    return Path(_ask(name, function, **arguments))


def _ask(name: str, function: str, **arguments: Any) -> Any:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ModelError(f"{name} is a model of a hub: pip install 'mindgen[hub]' to fetch it") from error
    try:
        return getattr(huggingface_hub, function)(**arguments)
    except errors.GatedRepoError as error:
        raise ModelError(f"{name} is gated: accept its terms on the hub, and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no model {name}, or it is private: check the name, or set HF_TOKEN; a folder of that name "
            "is not there either"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{name}: the hub has no such revision") from error
    except errors.EntryNotFoundError as error:  # of a file, or of anything while offline
        raise ModelError(f"there is no folder {name}, and it cannot be fetched: {_first_line(error)}") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise ModelError(f"cannot fetch {name}: {_first_line(error)}") from error
    except Exception as error:  # of whatever HTTP client the package has
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "requests", "urllib3"):
            raise
        raise ModelError(f"cannot fetch {name}: {_first_line(error) or type(error).__name__}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
