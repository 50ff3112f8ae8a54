"""New weights for the base model, tensor by tensor: checked and staged, beside the steps, until all are there."""

from collections.abc import Mapping

import numpy as np

from mindgen.engine.engine_spec import EngineSpec
from mindgen.errors import WeightUpdateError
from mindgen.kernels import dtypes, plugin
from mindgen.kernels.library import DType
from mindgen.runner.spec import Runner
from mindgen.weights.architecture import architectures
from mindgen.weights.checksum import Examined, network_checksum, tensor_checksum
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.mindformers_fused import LAYOUT_KEY, LAYOUTS, Layout, is_fused, separate_ordered
from mindgen.weights.tensor_names import EMBEDDING, HEAD

_MOST_SHOWN = 4


class BaseUpdate:
    """Of names as a checkpoint has them, Hugging Face's or MindFormers', which the architecture translates.

    Args:
        checksums: of the tensors that are served.
        fused_layout: in which order the rows of MindFormers' fused weights lie; None if there are none.

    Attributes:
        names: that have come.
        received: by the network's names, the checksums of the tensors.
    """

    def __init__(
        self, runner: Runner, spec: EngineSpec, checksums: Mapping[str, str], fused_layout: Layout | None
    ) -> None:
        self._runner, self._config, self._dtype = runner, spec.model, spec.dtype
        self._old, self._fused_layout = checksums, fused_layout
        self._kernels = plugin.load_kernels()
        self.names: list[str] = []
        self.ignored: list[str] = []
        self.received: dict[str, str] = {}
        self.bytes_received = self.bytes_bound = 0
        self._unknown: list[str] = []
        self._repeated: list[str] = []

    def wants(self, name: str, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of that name is to come; what is wrong with names is said at the end, of all together.

        Raises:
            WeightUpdateError: the dtype or the shape is not the network's.
        """
        if dtype not in dtypes.FLOATS:
            raise WeightUpdateError(f"{name!r} is {dtype}: expected one of {', '.join(dtypes.FLOATS)}")
        if name in self.names:
            self._repeated.append(name)
            return False
        # A picture of the tensor that takes no memory.
        picture: np.ndarray = np.broadcast_to(np.zeros((), dtypes.FILE_STORAGE[dtype]), shape)
        try:
            translated = self._translated(name, MappedTensor(dtype, picture))
        except ValueError as error:
            raise WeightUpdateError(f"{name!r} has shape {shape}, which no part of the model has") from error
        known = self._runner.report.shapes
        self.names.append(name)
        if any(each not in known for each in translated):
            is_derived = name.endswith(self._runner.report.derived)
            (self.ignored if is_derived else self._unknown).append(name)
            return False
        if not translated:
            self.ignored.append(name)
            return False
        for each, tensor in translated.items():
            if tensor.shape != known[each]:
                raise WeightUpdateError(
                    f"{name!r} has shape {shape}, and the model's {each!r} has {known[each]}: only a new engine can "
                    "serve other shapes"
                )
        return True

    def add(self, name: str, tensor: MappedTensor, allow_nan: bool = False, examined: Examined | None = None) -> None:
        """Keeps a wanted tensor, whose memory nobody may change from now on.

        Args:
            examined: what is known of it; None is nothing.

        Raises:
            WeightUpdateError: it is not finite.
        """
        self.bytes_received += tensor.nbytes
        for own, part in self._translated(name, tensor).items():
            values = np.ascontiguousarray(part.as_dtype(self._dtype))
            is_whole = tensor.dtype == self._dtype and _is_same(values, tensor.data)
            known = examined if examined is not None and is_whole else self._examine(values)
            if not allow_nan and not known.is_finite:
                raise WeightUpdateError(f"{name!r} has values that are NaN or infinite: set allow_nan to take them")
            if own in self.received:  # a tied head beside the embedding
                if self.received[own] != known.checksum:
                    self._repeated.append(name)
                continue
            bound = self._runner.stage_weight(own, self._dtype, values)
            if bound == 0:
                raise WeightUpdateError(f"{name!r} has reached no rank")
            self.bytes_bound += bound
            self.received[own] = known.checksum

    def _examine(self, values: np.ndarray) -> Examined:
        is_finite = self._kernels.are_finite(values, DType[self._dtype.upper()])
        return Examined(tensor_checksum(self._dtype, values), is_finite)

    def check(self, expect_change: bool, expect_all: bool) -> None:
        """
        Raises:
            WeightUpdateError: a name is unknown or there twice, nothing has come, or nothing new; the names are listed.
        """
        problems = [
            f"{len(names)} {what}: {_shown(names)}"
            for what, names in (
                ("names that the model does not have", self._unknown),
                ("names that came twice", self._repeated),
                ("tensors that are missing", self.missing() if expect_all else []),
            )
            if names
        ]
        if problems:
            raise WeightUpdateError("the new weights have " + ", and ".join(problems))
        if not self.received:
            raise WeightUpdateError("the new weights have no tensor that the model has: nothing would change")
        if expect_change and all(self._old[name] == checksum for name, checksum in self.received.items()):
            raise WeightUpdateError(
                f"all {len(self.received)} tensors are those that are served already: set expect_change to False if "
                "that is meant"
            )

    def checksum(self) -> str:
        """Of the network with the new weights."""
        return network_checksum(repr(self._config), {**self._old, **self.received})

    def missing(self) -> list[str]:
        return sorted(self._runner.report.shapes.keys() - self.received.keys())

    def modules(self) -> int:
        return len({name.rpartition(".")[0] for name in self.received})

    def _translated(self, name: str, tensor: MappedTensor) -> dict[str, MappedTensor]:
        """Under the names that the network has."""
        tensors = {name: tensor}
        if is_fused(name):
            if self._fused_layout is None:
                raise WeightUpdateError(
                    f"{name!r} is one of MindFormers' fused weights (qkv_concat: True), whose rows lie in one of two "
                    f"orders: say {LAYOUT_KEY}, which is one of {', '.join(LAYOUTS)}"
                )
            tensors = separate_ordered("the new weights", tensors, self._fused_layout, self._config)
        translated = architectures()[self._config.architecture].translate(tensors, self._config)
        if not self._config.tie_word_embeddings:
            return translated
        head, embedding = f"{HEAD}.weight", f"{EMBEDDING}.weight"
        return {embedding if each == head else each: tensor for each, tensor in translated.items()}


def _is_same(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether arrays are the same memory, seen in the same way."""
    return (x.ctypes.data, x.shape, x.strides, x.dtype) == (y.ctypes.data, y.shape, y.strides, y.dtype)


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(map(repr, names[:_MOST_SHOWN])) + more
