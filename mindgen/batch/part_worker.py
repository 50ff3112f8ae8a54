"""A replica of the model that answers parts on whatever machine it is, and writes them itself. Knows nothing of Ray."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from mindgen.batch.answer import Answer
from mindgen.batch.config import BatchConfig
from mindgen.batch.job_folder import JobFolder, Manifest
from mindgen.batch.model import BatchModel, ConfiguredModel
from mindgen.batch.row_request import RowReader, used_columns
from mindgen.batch.source import Rows, Source, open_source
from mindgen.batch.totals import Totals
from mindgen.batch.worker import Worker, WorkerEvents
from mindgen.errors import BatchError, MindgenError, WorkerError
from mindgen.system.cores import threads_per_share


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a replica works at.

    Attributes:
        config: of the job; its input and the folder of its output are where all machines see them.
        manifest: of the job, as the driver has it.
        sharing: replicas that share a machine's cores.
    """

    config: BatchConfig
    manifest: Manifest
    sharing: int = 1

    def own_config(self) -> BatchConfig:
        """The same job with one replica, which has its share of this machine's cores."""
        engine = self.config.engine
        threads = engine.num_threads or threads_per_share(None, self.sharing)
        return replace(
            self.config, engine=replace(engine, data_parallel_size=1, nnodes=1, num_threads=threads)
        )  # fmt: skip


class PartWorker:
    """What an actor is. `load` comes first; then `answer` may be called by several threads, each for its part."""

    def __init__(self, assignment: Assignment) -> None:
        self._config, self._manifest = assignment.own_config(), assignment.manifest
        self._until_end = ExitStack()
        self._source: Source
        self._model: BatchModel
        self._reader: RowReader
        self._folder = JobFolder(Path(assignment.config.output))

    def machine(self) -> str:
        """Where it has got its place."""
        return socket.gethostname()

    def load(self) -> None:
        """
        Raises:
            BatchError: the job, its input or its model are others here than for the driver.
            MindgenError: the input or the model cannot be read here.
        """
        with _naming_machine():
            config = self._config
            self._until_end.enter_context(self._folder.at_work())
            self._source = open_source(config.input, config.columns.prompt, self._folder.output)
            opener = ConfiguredModel(config)
            self._refuse_differences(opener.digest)
            self._model = opener.open()
            columns = used_columns(config.columns, self._source, config.adapter_id)
            self._reader = RowReader(config, columns, self._model)

    def answer(self, part: int) -> Totals:
        """Answers what is missing of a part, and writes it; returns what is in all of it.

        Raises:
            BatchError: with fail_fast, a row has failed.
            MindgenError: the model has failed; what was answered is kept.
        """
        events = WorkerEvents(_ignore, _nothing, _ignore_torn)
        Worker(self._config, self._model, self._reader, self._folder.parts, events).run(self._blocks(part))
        header = self._folder.parts.header(part)
        if header is None:
            raise BatchError(f"{self._folder.parts.path(part)} is damaged: run the job again")
        return header.totals

    def _refuse_differences(self, model_digest: str) -> None:
        job = self._manifest.fingerprint
        compared = {
            "the job": (self._manifest, self._folder.manifest()),
            "the version of mindgen": (job["mindgen"], version("mindgen")),
            "the model's digest": (job["model"], model_digest),
            "the number of the input's rows": (self._manifest.num_rows, self._source.num_rows),
        }
        for name, (there, here) in compared.items():
            if there != here:
                what = "" if isinstance(there, Manifest) else f": {here}, not {there}"
                raise BatchError(f"{name} is another one than for the process that runs the job{what}")

    def _blocks(self, part: int) -> Iterator[tuple[int, Rows]]:
        for rows in self._source.blocks(self._config.part_rows, lambda number: number != part):
            yield part, rows
            return


@contextmanager
def _naming_machine() -> Iterator[None]:
    """Errors say where they are."""
    try:
        yield
    except WorkerError:
        raise
    except MindgenError as error:
        raise type(error)(f"on {socket.gethostname()}: {error}") from error


def _ignore(answers: list[Answer]) -> None: ...


def _nothing() -> None: ...


def _ignore_torn(part: int, num_bytes: int) -> None: ...
