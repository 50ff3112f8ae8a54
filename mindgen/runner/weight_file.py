"""Weights that are not in memory for a while: a file without a name keeps them, and ends with the process."""

import tempfile

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.system import environment
from mindgen.system.memory import drop_pages
from mindgen.weights.checksum import tensor_checksum


class WeightFile:
    """Of arrays in one piece, some of which may be the same; what lies in a mapped file is not written once more."""

    def __init__(self, memories: list[np.ndarray]) -> None:
        every = {id(memory): memory for memory in memories}
        self._mapped = [memory for memory in every.values() if not memory.flags.writeable]
        self._owned = [memory for memory in every.values() if memory.flags.writeable]
        self._checksums = [tensor_checksum(memory.dtype.name, memory) for memory in self._owned]
        folder = environment.cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # open until `restore`

    def drop(self) -> int:
        """Gives the memory back once all is written; its bytes.

        Raises:
            OSError: the disk is full; nothing is lost.
        """
        for memory in self._owned:
            self._file.write(memory.reshape(-1).view(np.uint8).data)
        self._file.flush()
        for memory in [*self._owned, *self._mapped]:
            drop_pages(memory)
        return sum(memory.nbytes for memory in [*self._owned, *self._mapped])

    def restore(self) -> int:
        """Raises CheckpointError if the file does not hold what was written."""
        self._file.seek(0)
        for memory, checksum in zip(self._owned, self._checksums, strict=True):
            count = self._file.readinto(memory.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
            if count != memory.nbytes or tensor_checksum(memory.dtype.name, memory) != checksum:
                raise CheckpointError("the file that has kept the weights does not hold what was written")
        self._file.close()
        return sum(memory.nbytes for memory in [*self._owned, *self._mapped])
