"""How far two adapters differ, module by module, without their large products."""

from dataclasses import dataclass

import numpy as np

from mindgen.adapters.formats.peft import Adapter, LoraUpdate
from mindgen.kernels import dtypes


@dataclass(frozen=True, slots=True)
class ModuleDifference:
    """One module of two adapters; None where an adapter leaves it alone.

    Attributes:
        relative: Frobenius norm of the difference of scaling * B A over that of the first; None if they do not compare.
    """

    module: str
    first: LoraUpdate | None
    second: LoraUpdate | None
    relative: float | None


def compare_adapters(first: Adapter, second: Adapter) -> list[ModuleDifference]:
    """All modules of both, by name."""
    differences = []
    for module in sorted(first.updates.keys() | second.updates.keys()):
        one, other = first.updates.get(module), second.updates.get(module)
        differences.append(ModuleDifference(module, one, other, _relative(one, other)))
    return differences


def _relative(first: LoraUpdate | None, second: LoraUpdate | None) -> float | None:
    if first is None or second is None:
        return None
    if first.a.shape[1] != second.a.shape[1] or first.b.shape[0] != second.b.shape[0]:
        return None
    (left, right), (other_left, other_right) = _factors(first), _factors(second)
    size = _norm(left, right)
    difference = _norm(np.hstack([left, -other_left]), np.vstack([right, other_right]))
    return difference / size if size else (0.0 if difference == 0.0 else float("inf"))


def _factors(update: LoraUpdate) -> tuple[np.ndarray, np.ndarray]:
    """scaling * B (out, r) and A (r, in), in float64."""
    a, b = (dtypes.to_float32(tensor.data, tensor.dtype).astype(np.float64) for tensor in (update.a, update.b))
    return b * update.scaling, a


def _norm(left: np.ndarray, right: np.ndarray) -> float:
    """Frobenius norm of left right, by QR factors of size r x r, which lose no digits of small differences."""
    outer, inner = np.linalg.qr(left)[1], np.linalg.qr(right.T)[1]
    return float(np.linalg.norm(outer @ inner.T))
