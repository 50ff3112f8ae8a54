"""Whether a checkpoint has the tensors that a network asks for, and no others: known before any memory is taken."""

from collections.abc import Collection, Iterable, Mapping

from mindgen.errors import ModelError
from mindgen.kernels.dtypes import FLOATS
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.tensor_names import HEAD

# Ends of the names of tensors that some tools save and that follow from the others.
DERIVED = ("rotary_emb.inv_freq",)


def require_tensors(tensors: Mapping[str, MappedTensor], shapes: Mapping[str, tuple[int, ...]], hint: str = "") -> None:
    """
    Raises:
        ModelError: some are missing, of another shape, or not of floats; the message says how many, and one.
    """
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise ModelError(f"the checkpoint has no tensor {missing[0]!r}{_and_others(missing, len(shapes))}{hint}")
    for name in shapes:
        if tensors[name].dtype not in FLOATS:
            raise ModelError(f"the checkpoint's {name!r} is {tensors[name].dtype}; served are {', '.join(FLOATS)}")
    wrong = [name for name, shape in shapes.items() if tensors[name].shape != shape]
    if wrong:
        name, others = wrong[0], _and_others(wrong, len(shapes))
        raise ModelError(
            f"the checkpoint's {name!r} has shape {tensors[name].shape}, config.json asks for {shapes[name]}{others}"
            f"{hint}"
        )


def find_unknown(names: Iterable[str], known: Collection[str], tied: bool) -> list[str]:
    """Those that a network has no use for; a tied head may be there beside the embedding."""
    derived = (*DERIVED, f"{HEAD}.weight") if tied else DERIVED
    return [name for name in names if name not in known and not name.endswith(derived)]


def refuse_unknown(architecture: str, unknown: Collection[str]) -> None:
    """Raises ModelError if there are tensors that no stage has a use for."""
    if unknown:
        raise ModelError(
            f"the checkpoint has {len(unknown)} tensors that {architecture} does not: {sorted(unknown)[:4]}"
        )


def _and_others(names: list[str], total: int) -> str:
    return f" (and so {len(names) - 1} more of the {total} that the model has)" if len(names) > 1 else ""
