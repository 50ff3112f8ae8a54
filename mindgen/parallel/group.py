"""The ranks of a group that shares a network: on one machine they meet in shared memory, several speak over TCP."""

import os
from ctypes import c_int
from dataclasses import dataclass

import numpy as np

from mindgen.errors import KernelError
from mindgen.kernels.library import KernelLibrary


def shared_memory(kernels: KernelLibrary, size: int) -> int:
    """A file descriptor of the memory that `size` ranks meet in; it has no name, so nothing is left of it."""
    descriptor = os.memfd_create("mindgen", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, kernels.function("group_bytes")(size))
    return descriptor


@dataclass(frozen=True, slots=True)
class NodeLinks:
    """This machine as a node of several that share a group's ranks evenly, in their order.

    Attributes:
        sockets: file descriptors of the connections with the other nodes, by node, -1 for this one; for the first
            rank of the node alone, and they may be closed afterwards.
    """

    node: int
    num_nodes: int
    sockets: tuple[int, ...] = ()


class ProcessGroup:
    """This process as a rank of a group.

    Args:
        memory: a file descriptor, of `shared_memory` for this machine's ranks; it may be closed afterwards.
        links: None where all ranks are on this machine.
    """

    def __init__(
        self, kernels: KernelLibrary, memory: int, rank: int, size: int, links: NodeLinks | None = None
    ) -> None:
        self.rank, self.size = rank, size
        self._kernels = kernels
        local_size = size if links is None else size // links.num_nodes
        self._handle = kernels.function("group_join")(memory, rank % local_size, local_size)
        if self._handle is None:
            raise KernelError(kernels.last_error)
        if links is not None:
            sockets = (c_int * links.num_nodes)(*links.sockets) if links.sockets else None
            kernels.call("group_link", self._handle, links.node, links.num_nodes, sockets)
        self._reason: str | None = None

    def use(self) -> None:
        """What this thread computes from now on is summed over this group."""
        self._kernels.function("use_group")(self._handle)

    def abort(self, reason: str) -> None:
        """Ends what this machine's ranks do together, now and from now on, with this error."""
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
