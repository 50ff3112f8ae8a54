"""A PEFT adapter folder: adapter_config.json and adapter_model.safetensors."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindgen import dtypes
from mindgen.checkpoint.json_file import read_json_object
from mindgen.checkpoint.safetensors_map import MappedTensor, map_safetensors
from mindgen.errors import AdapterError, CheckpointError

_CONFIG_FILE = "adapter_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TENSOR_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.weight")

# Settings that change what an adapter computes and that are not served; each with its harmless values.
_UNSERVED: dict[str, tuple[object, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "fan_in_fan_out": (False, None),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    "use_qalora": (False, None),
    "lora_bias": (False, None),
    "alora_invocation_tokens": (None, []),
    "exclude_modules": (None, []),
}


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One module's update: y += scaling * (x a^T) b^T, with a (r, in) and b (out, r) in float32."""

    a: np.ndarray
    b: np.ndarray
    scaling: float


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The parts of adapter_config.json that say what an adapter computes."""

    rank: int
    alpha: float
    use_rslora: bool
    target_modules: list[str] | str
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    layers_to_transform: list[int] | None

    def targets(self, module: str) -> bool:
        """Whether PEFT would put LoRA on the module of that full name."""
        if isinstance(self.target_modules, str):
            matches = self.target_modules == "all-linear" or re.fullmatch(self.target_modules, module) is not None
        else:
            matches = any(module == name or module.endswith(f".{name}") for name in self.target_modules)
        layer = re.search(r"\.layers\.(\d+)\.", module)
        if self.layers_to_transform is not None and layer is not None:
            return matches and int(layer.group(1)) in self.layers_to_transform
        return matches

    def rank_of(self, module: str) -> int:
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv:2312.03732), with the module's own alpha and r."""
        rank = self.rank_of(module)
        alpha = _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """An adapter as it lies on disk; `pairs` by module name without PEFT's prefix, `digest` of config and tensors."""

    folder: Path
    config: PeftConfig
    pairs: dict[str, LoraPair]
    digest: str


def read_peft_config(folder: Path) -> PeftConfig:
    """The configuration of the adapter in the folder.

    Raises:
        AdapterError: it is missing, malformed, or asks for what is not served.
    """
    path = folder / _CONFIG_FILE
    raw = read_json_object(path, AdapterError)
    if raw.get("peft_type", "LORA") != "LORA":
        raise AdapterError(f"{path}: peft_type {raw['peft_type']!r} is not served, only LORA")
    for key, harmless in _UNSERVED.items():
        if raw.get(key) not in harmless:
            raise AdapterError(f"{path}: {key}={raw[key]!r} is not served yet")
    layers = raw.get("layers_to_transform")
    config = PeftConfig(
        rank=raw.get("r", 8),
        alpha=raw.get("lora_alpha", 8),
        use_rslora=raw.get("use_rslora") or False,
        target_modules=raw.get("target_modules") or [],
        rank_pattern=raw.get("rank_pattern") or {},
        alpha_pattern=raw.get("alpha_pattern") or {},
        layers_to_transform=[layers] if isinstance(layers, int) else layers,
    )
    _validate(path, config)
    return config


def read_peft_adapter(folder: Path) -> PeftAdapter:
    """The adapter in the folder, its tensors paired and checked against its configuration.

    Raises:
        AdapterError: a file is missing or damaged, a tensor has no partner or not the rank the configuration gives.
    """
    config = read_peft_config(folder)
    path = folder / _WEIGHTS_FILE
    try:
        tensors = map_safetensors(path)
    except CheckpointError as error:
        raise AdapterError(str(error)) from error
    if not tensors:
        raise AdapterError(f"{path} holds no tensors")
    halves: dict[str, dict[str, MappedTensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR_NAME.fullmatch(name.removeprefix(_PREFIX))
        if match is None:
            raise AdapterError(f"{path}: tensor {name!r} is not of the form {_PREFIX}<module>.lora_A|B.weight")
        halves.setdefault(match["module"], {})[match["half"]] = tensor
    pairs = {module: _pair(path, config, module, half) for module, half in sorted(halves.items())}
    return PeftAdapter(folder, config, pairs, _digest(folder, tensors))


def _pair(path: Path, config: PeftConfig, module: str, half: dict[str, MappedTensor]) -> LoraPair:
    if len(half) != 2:
        raise AdapterError(f"{path}: {module} has lora_{next(iter(half))} but not its other half")
    a, b = half["A"], half["B"]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise AdapterError(f"{path}: the LoRA tensors of {module} must be matrices, not of shape {a.shape}, {b.shape}")
    rank = config.rank_of(module)
    if a.shape[0] != rank or b.shape[1] != rank:
        raise AdapterError(
            f"{path}: {module} has lora_A {a.shape} and lora_B {b.shape}, but {_CONFIG_FILE} gives it rank {rank}"
        )
    for tensor in (a, b):
        if tensor.dtype not in dtypes.STORAGE:
            raise AdapterError(f"{path}: the LoRA tensors of {module} must be floats, not {tensor.dtype}")
    pair = LoraPair(a.as_dtype("float32"), b.as_dtype("float32"), config.scaling_of(module))
    if not (np.isfinite(pair.a).all() and np.isfinite(pair.b).all()):
        raise AdapterError(f"{path}: the LoRA tensors of {module} are not finite")
    return pair


def _digest(folder: Path, tensors: dict[str, MappedTensor]) -> str:
    """SHA-256 of the configuration and the tensors, whatever their order in the files."""
    hasher = hashlib.sha256(json.dumps(read_json_object(folder / _CONFIG_FILE, AdapterError), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        hasher.update(np.ascontiguousarray(tensor.data).data)
    return hasher.hexdigest()


def _by_pattern(pattern: dict[str, Any], module: str, default: float) -> float:
    """The first entry whose key, a regular expression, matches the end of the module's name; as PEFT does."""
    for key, value in pattern.items():
        if re.fullmatch(_suffix_expression(key), module):
            return value
    return default


def _suffix_expression(key: str) -> str:
    return rf"(.*\.)?({key})"


def _validate(path: Path, config: PeftConfig) -> None:
    def require(valid: bool, field: str, value: object, expected: str) -> None:
        if not valid:
            raise AdapterError(f"{path}: {field} must be {expected}, not {value!r}")

    for rank in (config.rank, *_values(path, "rank_pattern", config.rank_pattern)):
        require(type(rank) is int and rank > 0, "r", rank, "a positive integer")
    for alpha in (config.alpha, *_values(path, "alpha_pattern", config.alpha_pattern)):
        require(type(alpha) in (int, float) and math.isfinite(alpha), "lora_alpha", alpha, "a number")
    require(type(config.use_rslora) is bool, "use_rslora", config.use_rslora, "true or false")
    names = config.target_modules
    valid_names = names and (isinstance(names, str) or _is_list_of(str, names))
    require(bool(valid_names), "target_modules", config.target_modules, "a list of names or a regular expression")
    targets = [config.target_modules] if isinstance(config.target_modules, str) else []
    patterns = [_suffix_expression(key) for key in (*config.rank_pattern, *config.alpha_pattern)]
    for expression in (*targets, *patterns):
        try:
            re.compile(expression)
        except re.error as error:
            raise AdapterError(f"{path}: {expression!r} is no regular expression: {error}") from error
    layers = config.layers_to_transform
    valid_layers = layers is None or _is_list_of(int, layers)
    require(valid_layers, "layers_to_transform", layers, "a list of layer numbers")


def _is_list_of(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _values(path: Path, field: str, pattern: Any) -> list[Any]:
    if not isinstance(pattern, dict):
        raise AdapterError(f"{path}: {field} must be an object of patterns and values, not {pattern!r}")
    return list(pattern.values())
