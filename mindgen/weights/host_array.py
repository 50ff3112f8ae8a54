"""Tensors of numpy, MindSpore and torch as arrays of numpy; of these three it imports numpy alone."""

import sys
from typing import Any

import numpy as np

from mindgen.kernels.dtypes import FLOATS
from mindgen.system.checks import shown


def host_array(name: str, value: Any) -> tuple[str, np.ndarray]:
    """The dtype as checkpoints call it, and the values of the same shape, on the tensor's own memory where that is the
    host's; of bfloat16 the bits, as uint16.

    Raises:
        ValueError: it is no tensor of these, or not of floats that a weight may have.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        try:
            value = value.detach().cpu()
            if value.dtype == torch.bfloat16:
                return "bfloat16", value.contiguous().view(torch.int16).numpy().view(np.uint16)
            value = value.numpy()
        except (TypeError, RuntimeError) as error:  # float8, or a tensor without data
            raise ValueError(f"{name!r} is {value.dtype} on {value.device}: {error}") from error
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name!r} must be a tensor of numpy, MindSpore or torch, not {shown(value)}")
    dtype = value.dtype.name
    if dtype not in FLOATS:
        raise ValueError(f"{name!r} is {dtype}: expected one of {', '.join(FLOATS)}")
    return dtype, value.view(np.uint16) if dtype == "bfloat16" else value
