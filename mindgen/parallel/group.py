"""The ranks of a tensor-parallel group on one machine, which meet in shared memory."""

import os

import numpy as np

from mindgen.errors import KernelError
from mindgen.kernels.library import KernelLibrary


def shared_memory(kernels: KernelLibrary, size: int) -> int:
    """A file descriptor of the memory that `size` ranks meet in; it has no name, so nothing is left of it."""
    descriptor = os.memfd_create("mindgen", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, kernels.function("group_bytes")(size))
    return descriptor


class ProcessGroup:
    """This process as a rank of a group.

    Args:
        memory: a file descriptor, of `shared_memory`; it may be closed afterwards.
    """

    def __init__(self, kernels: KernelLibrary, memory: int, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._kernels = kernels
        self._handle = kernels.function("group_join")(memory, rank, size)
        if self._handle is None:
            raise KernelError(kernels.last_error)
        self._reason: str | None = None

    def use(self) -> None:
        """What this thread computes from now on is summed over this group."""
        self._kernels.function("use_group")(self._handle)

    def abort(self, reason: str) -> None:
        """Ends what all ranks do together, now and from now on, with this error."""
        self._reason = reason
        self._kernels.function("group_abort")(self._handle, reason.encode())

    def check(self) -> None:
        """Raises KernelError if this process has ended the group, in whatever thread."""
        if self._reason is not None:
            raise KernelError(self._reason)

    def all_reduce(self, x: np.ndarray, y: np.ndarray, dtype: int) -> None:
        """y = the sum of all ranks' x, in this dtype's storage."""
        self._kernels.call("all_reduce", self._handle, x, y, x.size, dtype)

    def gather_columns(self, x: np.ndarray, num_columns: int) -> np.ndarray:
        """On rank 0 all ranks' x (R, N) side by side, cut off at num_columns; x itself on the others."""
        y = np.empty((len(x), num_columns), x.dtype) if self.rank == 0 else None
        item = x.itemsize
        self._kernels.call("gather_columns", self._handle, x, y, len(x), x.shape[1] * item, num_columns * item)
        return x if y is None else y

    def leave(self) -> None:
        self._kernels.function("group_leave")(self._handle)
        self._handle = None
