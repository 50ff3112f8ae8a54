"""Many copies in one call, which the threads of the kernels share."""

import numpy as np

from mindgen.kernels.library import KernelLibrary
from mindgen.kernels.transpose import address

_CALL = np.dtype([("x", np.uintp), ("y", np.uintp), ("bytes", np.int64)])  # mg_copy_call


class Copies:
    def __init__(self) -> None:
        self._calls: list[tuple[int, int, int]] = []

    def add(self, x: np.ndarray | None, y: np.ndarray) -> None:
        """x, or zeros, into y, both in one piece; they must live until `run`."""
        assert y.flags.c_contiguous and (x is None or (x.flags.c_contiguous and x.nbytes == y.nbytes))
        self._calls.append((0 if x is None else address(x), address(y), y.nbytes))

    def run(self, kernels: KernelLibrary) -> None:
        kernels.call("copy_all", np.array(self._calls, _CALL), len(self._calls))
        self._calls.clear()
