"""A new version of an adapter, tensor by tensor, which takes its name once all of it is there."""

from pathlib import Path
from typing import Any

from mindgen.adapters.formats.lora_config import CONFIG_FILE, LoraConfig, parse_lora_config
from mindgen.adapters.formats.peft import SAFETENSORS, Adapter, make_adapter, read_adapter
from mindgen.adapters.loader import fit_adapter, read_lora_config
from mindgen.adapters.registry import AdapterVersion
from mindgen.errors import WeightUpdateError
from mindgen.kernels import dtypes
from mindgen.runner.spec import Runner
from mindgen.weights.lora_names import TensorNames
from mindgen.weights.mapped_tensor import MappedTensor


class AdapterUpdate:
    """Of names as PEFT or MindFormers give them to an adapter's tensors.

    Args:
        before: the version that is served; None for a new name.
        names: of tensors that were read before.
        most_bytes: of all tensors together.

    Attributes:
        names: that have come.
    """

    def __init__(
        self, adapter_id: str, before: AdapterVersion | None, runner: Runner, names: TensorNames, most_bytes: int
    ) -> None:
        self._adapter_id, self._before, self._runner, self._most_bytes = adapter_id, before, runner, most_bytes
        self._parsed_names = names
        self._tensors: dict[str, MappedTensor] = {}
        self._num_promised = 0
        self.names: list[str] = []
        self.bytes_received = 0
        self._repeated: list[str] = []

    def wants(self, name: str, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of that name is to come.

        Raises:
            WeightUpdateError: it is not of floats, or there are too many.
        """
        if dtype not in dtypes.FLOATS:
            raise WeightUpdateError(f"{name!r} is {dtype}: expected one of {', '.join(dtypes.FLOATS)}")
        if name in self.names:
            self._repeated.append(name)
            return False
        self.names.append(name)
        size = dtypes.FILE_STORAGE[dtype]().itemsize
        for each in shape:
            size *= each
        self._num_promised += size
        if self._num_promised > self._most_bytes:
            raise WeightUpdateError(
                f"adapter {self._adapter_id} has more than the {self._most_bytes} bytes of host_adapter_memory"
            )
        return True

    def add(self, name: str, tensor: MappedTensor) -> None:
        """Keeps a wanted tensor, whose memory nobody may change from now on."""
        self.bytes_received += tensor.nbytes
        self._tensors[name] = tensor

    def digest_before(self) -> str | None:
        """Of the version that is served; None if there is none."""
        before = self._before
        if before is None or before.digest is not None:
            return None if before is None else before.digest
        return read_adapter(before.folder).digest

    def announce(self, adapter: Adapter) -> None:
        """Has all ranks know it."""
        self._runner.hold_adapter(adapter)

    def make(self, raw_config: dict[str, Any] | None) -> Adapter:
        """The adapter, once it is checked as one from a folder is.

        Args:
            raw_config: of an adapter_config.json; None is that of the version before.

        Raises:
            WeightUpdateError: a name came twice, or there is no configuration.
            AdapterError: it does not fit, or is not finite.
        """
        if self._repeated:
            raise WeightUpdateError(f"adapter {self._adapter_id}: names that came twice: {self._repeated[:4]}")
        if not self._tensors:
            raise WeightUpdateError(f"adapter {self._adapter_id}: no tensor has come: nothing would change")
        folder = Path(f"(sent for {self._adapter_id})")
        config = self._config(folder, raw_config)
        adapter = make_adapter(folder / SAFETENSORS, config, self._tensors, self._parsed_names)
        fit_adapter(self._adapter_id, adapter, self._runner.report.modules, self._runner.base_model)
        return adapter

    def _config(self, folder: Path, raw: dict[str, Any] | None) -> LoraConfig:
        if raw is not None:
            return parse_lora_config(folder / CONFIG_FILE, raw)
        if self._before is None:
            raise WeightUpdateError(
                f"adapter {self._adapter_id} is new: give adapter_config, the content of its adapter_config.json"
            )
        return read_lora_config(self._before)
