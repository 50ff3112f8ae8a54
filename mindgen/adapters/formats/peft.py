"""An adapter folder of PEFT or MindFormers: one record of what it changes, whatever its files are called."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from mindgen.adapters.formats.lora_config import CONFIG_FILE, LoraConfig, parse_lora_config
from mindgen.errors import AdapterError, CheckpointError
from mindgen.kernels import dtypes
from mindgen.system.json_file import read_json_object
from mindgen.weights.lora_names import TensorNames, embeddings, interleaved_module, output_modules
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import map_file

SAFETENSORS, TORCH, MINDSPORE = "adapter_model.safetensors", "adapter_model.bin", "adapter_model.ckpt"
ADDED_TOKENS = "added_tokens.json"
_MAX_CONFIG_BYTES = 10_000_000
_FILES = (SAFETENSORS, TORCH, MINDSPORE)  # in the order in which they are looked for, as PEFT does


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One module's update: y += scaling * (x a^T) b^T, with a (r, in) and b (out, r) in the storage of dtype."""

    a: np.ndarray
    b: np.ndarray
    scaling: float
    dtype: str

    @property
    def rank(self) -> int:
        return len(self.a)


@dataclass(frozen=True, slots=True)
class OutputChange:
    """What an adapter does to a module's outputs besides LoRA: y * scale + shift, (out,) in float32; None is nothing.

    DoRA scales, biases shift.
    """

    scale: np.ndarray | None
    shift: np.ndarray | None


@dataclass(frozen=True, slots=True)
class LoraUpdate:
    """What the files hold for one module: W += scaling * b a, with a (r, in) and b (out, r).

    Attributes:
        bias: of b (lora_bias), (out,).
        magnitude: DoRA's (arXiv:2402.09353), one for each output.
        is_embedding: a (r, vocabulary) and b (hidden, r) update a table (vocabulary, hidden) by (b a)^T.
    """

    a: MappedTensor
    b: MappedTensor
    scaling: float
    bias: MappedTensor | None = None
    magnitude: MappedTensor | None = None
    is_embedding: bool = False

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def tensors(self) -> dict[str, MappedTensor]:
        every = {"A": self.a, "B": self.b, "B.bias": self.bias, "magnitude": self.magnitude}
        return {role: tensor for role, tensor in every.items() if tensor is not None}


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as it lies on disk; modules have Hugging Face's names, without a prefix.

    Attributes:
        weights_file: the name of the file that its tensors came from.
        updates: LoRA by module.
        base_weights: whole parameters that replace the base model's, also where another is tied to them (bias, resized
            embeddings), by parameter name.
        saved_modules: whole parameters of modules_to_save, which replace the module's alone.
        extra_rows: rows that new tokens add to a table, by module (MindFormers).
        added_tokens: the ids of new tokens by their text.
        digest: BLAKE3 of what it computes: tensors, their names and scalings. The same in every format.
    """

    folder: Path
    weights_file: str
    config: LoraConfig
    updates: dict[str, LoraUpdate]
    base_weights: dict[str, MappedTensor]
    saved_modules: dict[str, MappedTensor]
    extra_rows: dict[str, MappedTensor]
    added_tokens: dict[str, int]
    digest: str

    def size(self) -> int:
        """Bytes of all tensors."""
        pairs = [tensor for update in self.updates.values() for tensor in update.tensors().values()]
        whole = (*self.base_weights.values(), *self.saved_modules.values(), *self.extra_rows.values())
        return sum(tensor.data.nbytes for tensor in (*pairs, *whole))

    def ranks(self) -> list[int]:
        return sorted({update.rank for update in self.updates.values()})


def weights_path(folder: Path) -> Path:
    """The file in the folder that holds the adapter's tensors; where PEFT would write it if there is none."""
    return next((folder / name for name in _FILES if (folder / name).is_file()), folder / SAFETENSORS)


def read_adapter(folder: Path, names: TensorNames | None = None) -> Adapter:
    """The adapter in the folder, its tensors paired and checked against its configuration.

    Args:
        names: of adapters that were read before.

    Raises:
        AdapterError: a file is missing or damaged, a tensor has no partner or not the rank the configuration gives.
    """
    tensors, raw_config = read_adapter_folder(folder)
    config = parse_lora_config(folder / CONFIG_FILE, raw_config)
    return make_adapter(weights_path(folder), config, tensors, names, _read_added_tokens(folder / ADDED_TOKENS))


def read_adapter_folder(folder: Path) -> tuple[dict[str, MappedTensor], dict[str, Any]]:
    """The tensors, and the content of the configuration.

    Raises:
        AdapterError: a file is missing or damaged.
    """
    if not folder.is_dir():
        raise AdapterError(f"no such folder: {folder}")
    raw_config = read_json_object(folder / CONFIG_FILE, AdapterError, _MAX_CONFIG_BYTES)
    path = weights_path(folder)
    if path.exists() and not path.is_file():
        raise AdapterError(f"{path} is no regular file")
    try:
        return map_file(path), raw_config
    except CheckpointError as error:
        raise AdapterError(str(error)) from error


def make_adapter(
    path: Path,
    config: LoraConfig,
    tensors: Mapping[str, MappedTensor],
    names: TensorNames | None = None,
    added_tokens: dict[str, int] | None = None,
) -> Adapter:
    """The adapter of these tensors, paired and checked against its configuration.

    Args:
        path: of the file that they came from, by which errors call it, and whose name tells a format's habits.
        names: of adapters that were read before.

    Raises:
        AdapterError: a tensor has no partner or not the rank the configuration gives, or is none of an adapter.
    """
    contents = _Contents(path, config, names or TensorNames())
    for name, tensor in tensors.items():
        contents.add(name, tensor)
    if not tensors or not contents.halves:
        raise AdapterError(f"{path} holds no tensors of an adapter")
    updates = {module: contents.update(module) for module in sorted(contents.halves)}
    contents.check_saved_modules()
    adapter = Adapter(
        path.parent, path.name, config, updates, contents.base_weights, contents.saved_modules, contents.extra_rows,
        added_tokens or {}, "",
    )  # fmt: skip
    return replace(adapter, digest=_digest(adapter))


class _Contents:
    """Sorts the tensors of a file by what they are."""

    def __init__(self, path: Path, config: LoraConfig, names: TensorNames) -> None:
        self._path = path
        self._names = names
        self._config = config
        self.halves: dict[str, dict[str, MappedTensor]] = {}
        self.base_weights: dict[str, MappedTensor] = {}
        self.saved_modules: dict[str, MappedTensor] = {}
        self.extra_rows: dict[str, MappedTensor] = {}

    def add(self, name: str, tensor: MappedTensor) -> None:
        parsed = self._names.parse(name)
        if parsed is not None and parsed.role == "training":
            return
        if parsed is None or not self._expects(parsed.module, parsed.role):
            raise AdapterError(
                f"{self._path}: tensor {name[:200]!r} is not of the form base_model.model.<module>.lora_A|B.weight"
            )
        module, role = parsed.module, parsed.role
        if interleaved_module(module):
            raise AdapterError(
                f"{self._path}: {module} is interleaved by heads (qkv_concat: True); save it with qkv_concat: False"
            )
        if tensor.dtype not in dtypes.FLOATS:
            raise AdapterError(f"{self._path}: the tensors of {module} must be floats, not {tensor.dtype}")
        if role == "extra":
            self._claim(self.extra_rows, module, tensor)
        elif role.startswith("saved.") or (role.startswith("base.") and self._config.saves(module)):
            self._claim(self.saved_modules, f"{module}.{role.rpartition('.')[2]}", tensor)
        elif role.startswith("base."):
            self._claim(self.base_weights, f"{module}.{role.rpartition('.')[2]}", tensor)
        else:
            if role in ("A", "B") and parsed.is_embedding != (module in embeddings()):
                raise AdapterError(f"{self._path}: {module} is no embedding, or has no tensors of one")
            self._claim(self.halves.setdefault(module, {}), role, tensor)

    def _expects(self, module: str, role: str) -> bool:
        if role == "base.bias":
            return self._config.bias != "none" or self._config.saves(module)
        if role == "base.weight":
            return self._config.saves(module) or module.endswith(output_modules())
        return True

    def _claim(self, tensors: dict[str, MappedTensor], name: str, tensor: MappedTensor) -> None:
        if name in tensors:
            raise AdapterError(f"{self._path}: two tensors claim {name}: is there more than one adapter in the file?")
        tensors[name] = tensor

    def update(self, module: str) -> LoraUpdate:
        halves, path, config = self.halves[module], self._path, self._config
        if not {"A", "B"} <= halves.keys():
            there = "A" if "A" in halves else "B" if "B" in halves else next(iter(halves))
            raise AdapterError(f"{path}: {module} has lora_{there} but not its other half")
        a, b = halves["A"], halves["B"]
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise AdapterError(f"{path}: the tensors of {module} must be matrices, not of shape {a.shape}, {b.shape}")
        rank, scaling = config.rank_of(module), config.scaling_of(module)
        # MindFormers pads to the configuration's rank, so that its scaling holds for smaller ones as well.
        fits = a.shape[0] == rank or (path.name == MINDSPORE and a.shape[0] <= rank)
        if not fits or a.shape[0] != b.shape[1]:
            raise AdapterError(
                f"{path}: {module} has lora_A {a.shape} and lora_B {b.shape}, but {CONFIG_FILE} gives it rank {rank}"
            )
        if not math.isfinite(scaling):
            raise AdapterError(f"{path}: {module} has the scaling {scaling}")
        outputs = b.shape[0]
        for role, asked in (("magnitude", config.use_dora), ("B.bias", config.lora_bias)):
            tensor = halves.get(role)
            if (tensor is not None) != asked and not (role == "B.bias" and module in embeddings()):
                raise AdapterError(f"{path}: {CONFIG_FILE} and the tensors of {module} disagree about its {role}")
            if tensor is not None and tensor.shape != (outputs,):
                raise AdapterError(f"{path}: {role} of {module} must be of shape ({outputs},), not {tensor.shape}")
        return LoraUpdate(a, b, scaling, halves.get("B.bias"), halves.get("magnitude"), module in embeddings())

    def check_saved_modules(self) -> None:
        """Every entry of modules_to_save must have brought a tensor."""
        for saved in self._config.modules_to_save:
            if not any(f"{saved}." in name for name in self.saved_modules):
                raise AdapterError(f"{self._path}: modules_to_save names {saved}, but the file has no tensor of it")


def _read_added_tokens(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    tokens = read_json_object(path, AdapterError, _MAX_CONFIG_BYTES)
    if not all(type(token_id) is int and token_id >= 0 for token_id in tokens.values()):
        raise AdapterError(f'{path} must give new tokens their ids, like {{"<new>": 32000}}')
    return tokens


def _digest(adapter: Adapter) -> str:
    hasher = blake3()

    def add(name: str, tensor: MappedTensor) -> None:
        hasher.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        hasher.update(np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).data)

    for module, update in adapter.updates.items():
        hasher.update(f"{module} {update.scaling.hex()} {update.is_embedding}\n".encode())
        for role, tensor in update.tensors().items():
            add(role, tensor)
    for kind in ("base_weights", "saved_modules", "extra_rows"):
        for name, tensor in sorted(getattr(adapter, kind).items()):
            add(f"{kind} {name}", tensor)
    hasher.update(json.dumps(adapter.added_tokens, sort_keys=True).encode())
    return hasher.hexdigest()
