"""What becomes of a job that is there already: it goes on, it is done, or it is begun again."""

from mindgen.batch.fingerprint import refuse_changes
from mindgen.batch.job_folder import JobFolder, Manifest, OutputFile
from mindgen.batch.model import ModelOpener
from mindgen.batch.summary import SUMMARY_FILE, read_summary
from mindgen.batch.worker import refuse_changed_adapters
from mindgen.errors import BatchError


def begin_or_go_on(folder: JobFolder, own: Manifest, opener: ModelOpener, overwrite: bool) -> Manifest:
    """The manifest of the job that is to be run, as its folder has it then.

    Args:
        own: of the job where it begins.

    Raises:
        BatchError: the job was begun with something else, or the output is not its own.
        CheckpointError: the job is finished, and its summary is damaged.
    """
    is_there = folder.output.exists()
    manifest = folder.manifest()
    if overwrite and (manifest is None or manifest.is_finished or manifest.fingerprint != own.fingerprint):
        manifest = None
    elif manifest is not None:
        refuse_changes(folder.path, manifest, own)
        if manifest.is_finished and not is_there:
            manifest = None
        elif manifest.is_finished:
            refuse_changed_adapters(folder.path, opener, read_summary(folder.path / SUMMARY_FILE).in_all)
            _refuse_changed_output(folder, manifest)
    elif is_there:
        raise BatchError(f"{folder.output} is there already: name another output, or set overwrite")
    if manifest is None:
        folder.clear()
        folder.save(own)
        return own
    return manifest


def _refuse_changed_output(folder: JobFolder, manifest: Manifest) -> None:
    written, found = manifest.output, OutputFile.of(folder.output)
    if written is not None and found != written:
        raise BatchError(
            f"{folder.output} is not what this job has written there: it was {written.num_bytes} bytes of digest "
            f"{written.digest}, now {found.num_bytes} of {found.digest}. Name another output, or begin again with "
            "overwrite"
        )
