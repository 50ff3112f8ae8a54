"""The folder of a job, beside its output: what it was begun with, who has it, and what it has made."""

import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from mindgen.batch.file_digest import file_digest
from mindgen.batch.parts import Parts
from mindgen.errors import BatchError
from mindgen.system.atomic import sync_folder, whole_file
from mindgen.system.file_lock import lock_within

_MANIFEST, _LOCK, _WORKERS_LOCK = "manifest.json", "lock", "workers.lock"
_FORMAT = 2
_SILENT_SECONDS = 60.0  # after which the process of another machine counts as gone
_WORKERS_SECONDS = 120.0  # in which the workers of a process that is gone end as well


class InputFile(msgspec.Struct, frozen=True):
    path: str
    digest: str


class OutputFile(msgspec.Struct, frozen=True):
    """As a job has written it."""

    num_bytes: int
    digest: str

    @classmethod
    def of(cls, path: Path) -> "OutputFile":
        return cls(path.stat().st_size, file_digest(path))


class Manifest(msgspec.Struct, kw_only=True):
    """What a job was begun with.

    Attributes:
        fingerprint: all that changes results, by dotted name.
        files: of the input, for people to read: where they are makes no difference.
        num_rows: of the input.
        part_rows: of each part but the last one.
        columns: all that changes only how the answers are written, by dotted name.
        overwrite: what was there has been cleared: the same command, with overwrite, goes on until this is finished.
        is_finished: the output is there, and is
        output: what was written.
    """

    format: int = _FORMAT
    fingerprint: dict[str, Any]
    files: list[InputFile] = []
    num_rows: int
    part_rows: int
    columns: dict[str, Any] = {}
    overwrite: bool = False
    is_finished: bool = False
    output: OutputFile | None = None

    @property
    def num_parts(self) -> int:
        return -(-self.num_rows // self.part_rows)


class Holder(msgspec.Struct, frozen=True):
    """The process that works at a job."""

    host: str
    process: int


class JobFolder:
    """Of the job whose output is the file `output`."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.job")

    @property
    def parts(self) -> Parts:
        return Parts(self.path)

    @property
    def input(self) -> Path:
        """Where an input is written that is no file."""
        return self.path / "input"

    @contextmanager
    def whole_output(self) -> Iterator[Path]:
        """Where to write the output, which takes its place when this is left without an error; what a run that was
        killed has left of it is removed."""
        folder = self.path / "output"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder / self.output.name
            os.replace(folder / self.output.name, self.output)
            sync_folder(self.output.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_input(self) -> None:
        shutil.rmtree(self.input, ignore_errors=True)

    def manifest(self) -> Manifest | None:
        """None where no job was begun.

        Raises:
            BatchError: it is damaged, or of another version's making.
        """
        path = self.path / _MANIFEST
        if not path.is_file():
            return None
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except msgspec.MsgspecError as error:
            raise BatchError(f"{path} is damaged ({error}): remove {self.path} to begin the job again") from error
        if manifest.format != _FORMAT:
            raise BatchError(
                f"{path} has format {manifest.format}, expected {_FORMAT}: finish the job with the version of mindgen "
                f"that began it, or remove {self.path} to begin again"
            )
        return manifest

    def save(self, manifest: Manifest) -> None:
        with whole_file(self.path / _MANIFEST) as unfinished:
            unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")

    def clear(self) -> None:
        """Forgets the job; its output stays."""
        shutil.rmtree(self.path / "parts", ignore_errors=True)
        for path in self.path.glob("*"):
            if path.name not in (_LOCK, _WORKERS_LOCK) and path.is_file():
                path.unlink()

    def holder(self) -> Holder | None:
        """Who works at the job now; None where nobody does."""
        path = self.path / _LOCK
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            return None
        with file:
            holder = _read_holder(file.read())
            if not lock_within(file, 0):
                return holder or Holder("?", 0)
            return holder if _is_elsewhere_and_alive(holder, path) else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """While this process works at the job, no other one does; also of another machine that sees the folder. Folders
        that this has made are removed in the end where no job was begun.

        Raises:
            BatchError: another process works at it.
            OSError: the folder cannot be written to.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / _LOCK
        with path.open("a+b") as file:
            file.seek(0)
            holder = _read_holder(file.read())
            if not lock_within(file, 0):
                raise self._refusal(holder)
            # Another process may have left the folder meanwhile, without a job.
            was_removed = not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno()))
            if was_removed or _is_elsewhere_and_alive(holder, path):
                raise self._refusal(holder)
            file.truncate(0)
            file.write(msgspec.json.encode(Holder(socket.gethostname(), os.getpid())))
            file.flush()
            try:
                self._await_workers()
                yield
            finally:
                file.truncate(0)
                if made and not (self.path / _MANIFEST).is_file():
                    self._remove(made)

    def _remove(self, made: Sequence[Path]) -> None:
        """The job's folder and those above it, as far as nobody else has put something there."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            for folder in made[1:]:
                folder.rmdir()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this process works for the one that holds the job: nobody holds the job anew before this has ended.

        Raises:
            BatchError: the folder is not to be seen here.
        """
        try:
            file = (self.path / _WORKERS_LOCK).open("r+b")
        except FileNotFoundError:
            raise BatchError(
                f"{socket.gethostname()} does not see {self.path}: all machines must see the folder of the output"
            ) from None
        with file:
            if not lock_within(file, _WORKERS_SECONDS, shared=True):
                raise self._refusal(self.holder())
            yield

    def _await_workers(self) -> None:
        with (self.path / _WORKERS_LOCK).open("ab") as file:
            if not lock_within(file, _WORKERS_SECONDS):
                raise BatchError(
                    f"{self.output}: processes of an earlier run still work at this job, though the one that had "
                    "started them is gone: end them"
                )

    def show_life(self) -> None:
        """Tells those of other machines that this process still works at the job."""
        os.utime(self.path / _LOCK)

    def _refusal(self, holder: Holder | None) -> BatchError:
        who = "another process" if holder is None else f"process {holder.process} of {holder.host}"
        return BatchError(f"{self.output}: {who} works at this job: wait for it, or name another output")


def _read_holder(content: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(content, type=Holder)
    except msgspec.MsgspecError:
        return None


def _is_elsewhere_and_alive(holder: Holder | None, path: Path) -> bool:
    """Of a file system whose locks do not reach from one machine to another."""
    if holder is None or holder.host == socket.gethostname():
        return False
    return time.time() - path.stat().st_mtime < _SILENT_SECONDS
