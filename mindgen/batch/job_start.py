"""What becomes of a job that is there already: it goes on, it is done, or it is begun again."""

from mindgen.batch.fingerprint import refuse_changes
from mindgen.batch.job_folder import JobFolder, Manifest, OutputFile
from mindgen.batch.model import ModelOpener
from mindgen.batch.summary import SUMMARY_FILE, read_summary
from mindgen.batch.worker import count_kept, refuse_changed_adapters
from mindgen.errors import BatchError, MindgenError


def begin_or_go_on(folder: JobFolder, own: Manifest, opener: ModelOpener) -> Manifest:
    """The manifest of the job that is to be run, as its folder has it then.

    Args:
        own: of the job where it begins.

    Raises:
        BatchError: the job was begun with something else, or the output is not its own.
        CheckpointError: the job is finished, and its summary is damaged.
    """
    found = _begun_by_the_same(folder, own, opener) if own.overwrite else _that_goes_on(folder, own, opener)
    if found is not None and found.is_finished:
        return found
    if found is not None:
        own.part_rows = found.part_rows
        own.overwrite = found.overwrite
    else:
        folder.clear()
    folder.save(own)
    return own


def _begun_by_the_same(folder: JobFolder, own: Manifest, opener: ModelOpener) -> Manifest | None:
    """The job that a command with overwrite has begun, and not ended; None where it is to be begun again."""
    try:
        found = folder.manifest()
        if found is None or not found.overwrite or found.is_finished:
            return None
        refuse_changes(folder.path, found, own)
        refuse_changed_adapters(folder.path, opener, count_kept(folder.parts))
    except MindgenError:
        return None
    return found


def _that_goes_on(folder: JobFolder, own: Manifest, opener: ModelOpener) -> Manifest | None:
    """The job that is there, finished or not; None where there is none, or its output is gone."""
    is_there, found = folder.output.exists(), folder.manifest()
    if found is None:
        if is_there:
            raise BatchError(f"{folder.output} is there already: name another output, or set overwrite")
        return None
    refuse_changes(folder.path, found, own)
    if not found.is_finished:
        return found
    if not is_there:
        return None
    refuse_changed_adapters(folder.path, opener, read_summary(folder.path / SUMMARY_FILE).in_all)
    _refuse_changed_output(folder, found)
    return found


def _refuse_changed_output(folder: JobFolder, manifest: Manifest) -> None:
    written, found = manifest.output, OutputFile.of(folder.output)
    if written is not None and found != written:
        raise BatchError(
            f"{folder.output} is not what this job has written there: it was {written.num_bytes} bytes of digest "
            f"{written.digest}, now {found.num_bytes} of {found.digest}. Name another output, or begin again with "
            "overwrite"
        )
