"""adapter_config.json of PEFT and of MindFormers: which modules an adapter changes, with which rank and scaling."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindgen.errors import AdapterError
from mindgen.weights.lora_names import huggingface_pattern, output_modules

CONFIG_FILE = "adapter_config.json"

# Settings that change what an adapter computes and that mindgen does not know; each with its harmless values.
_UNKNOWN: dict[str, tuple[object, ...]] = {
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    "use_qalora": (False, None),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "use_bdlora": (None, False),
    "monteclora_config": (None,),
}
# These initialisations change the base weights as well, so that A and B alone are not what was trained.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MAX_PATTERN_LENGTH = 2000
# What keeps a match from taking exponential time: no repeated groups, and few repetitions in a row.
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPETITION = re.compile(r"[*+{]")
_MAX_REPETITIONS = 5


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The parts of adapter_config.json that say what an adapter computes, in Hugging Face's module names."""

    rank: int
    alpha: float
    use_rslora: bool
    target_modules: list[str] | str
    exclude_modules: list[str] | str
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    layers_to_transform: list[int] | None
    layers_pattern: list[str]
    modules_to_save: list[str]
    use_dora: bool
    bias: str
    lora_bias: bool
    ensure_weight_tying: bool

    def targets(self, module: str) -> bool:
        """Whether PEFT would put LoRA on the module of this full name."""
        if _matches(self.exclude_modules, module) or self._is_part_of_saved(module):
            return False
        # Expressions and exact names leave PEFT no choice of layers.
        if isinstance(self.target_modules, str) or module in self.target_modules:
            return _matches(self.target_modules, module)
        return _matches(self.target_modules, module) and self._is_chosen_layer(module)

    def _is_chosen_layer(self, module: str) -> bool:
        if not self.layers_to_transform:
            return True
        patterns = [rf"(?:^|.*?\.){pattern}" for pattern in self.layers_pattern] or [r".*?\.[^.]*"]
        for pattern in patterns:
            if match := re.match(rf"{pattern}\.(?P<layer>\d+)\.", module):
                return int(match["layer"]) in self.layers_to_transform
        return False

    def _is_part_of_saved(self, module: str) -> bool:
        return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self.modules_to_save)

    def saves(self, module: str) -> bool:
        """Whether modules_to_save names the module, or one that holds it, by the end of its name."""
        return any(f"{name}." in f"{module}." for name in self.modules_to_save)

    def rank_of(self, module: str) -> int:
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv:2312.03732), with the module's own alpha and r."""
        rank = self.rank_of(module)
        alpha = _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def parse_lora_config(path: Path, raw: dict[str, Any]) -> LoraConfig:
    """The configuration in the JSON object that the file at path holds.

    Raises:
        AdapterError: a value is malformed, or asks for what mindgen does not know.
    """
    fields = _Fields(path, raw)
    if raw.get("peft_type", "LORA") != "LORA":
        raise AdapterError(f"{path}: peft_type {raw['peft_type']!r} is not served, only LORA")
    for key, harmless in _UNKNOWN.items():
        if not any(raw.get(key) is value or raw.get(key) == value for value in harmless):
            raise AdapterError(f"{path}: {key}={_shown(raw[key])} is not served yet")
    initialisation = raw.get("init_lora_weights")
    if isinstance(initialisation, str) and initialisation.lower().startswith(_CHANGES_BASE):
        raise AdapterError(
            f"{path}: init_lora_weights={_shown(initialisation)} also changed the base weights, which are not here; "
            "let PEFT convert it to plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    fields.flag("fan_in_fan_out")  # tells how the base weight is stored, which its name tells as well
    rank_key = "lora_rank" if "r" not in raw and "lora_rank" in raw else "r"
    layers = raw.get("layers_to_transform")
    return LoraConfig(
        rank=fields.rank(rank_key, raw.get(rank_key, 8)),
        alpha=fields.number("lora_alpha", raw.get("lora_alpha", 8)),
        use_rslora=fields.flag("use_rslora"),
        target_modules=fields.modules("target_modules", raw.get("target_modules")),
        exclude_modules=fields.modules("exclude_modules", raw.get("exclude_modules"), needed=False),
        rank_pattern={key: fields.rank("rank_pattern", value) for key, value in fields.patterns("rank_pattern")},
        alpha_pattern={key: fields.number("alpha_pattern", value) for key, value in fields.patterns("alpha_pattern")},
        layers_to_transform=fields.layers([layers] if type(layers) is int else layers),
        layers_pattern=fields.expressions("layers_pattern"),
        modules_to_save=fields.expressions("modules_to_save"),
        use_dora=fields.flag("use_dora"),
        bias=fields.bias(),
        lora_bias=fields.flag("lora_bias"),
        ensure_weight_tying=fields.flag("ensure_weight_tying"),
    )


class _Fields:
    """Checks values one by one; a wrong one is an AdapterError that names file, field and value."""

    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self._path = path
        self._raw = raw

    def _require(self, valid: bool, field: str, value: object, expected: str) -> None:
        if not valid:
            raise AdapterError(f"{self._path}: {field} must be {expected}, not {_shown(value)}")

    def rank(self, field: str, value: Any) -> int:
        self._require(type(value) is int and 0 < value < 2**53, field, value, "a positive integer")
        return int(value)

    def number(self, field: str, value: Any) -> float:
        valid = type(value) in (int, float) and abs(value) < 1e30  # also keeps out NaN, and integers past all floats
        self._require(valid, field, value, "a number")
        return value  # type: ignore[no-any-return]

    def flag(self, field: str) -> bool:
        value = self._raw.get(field) or False
        self._require(type(value) is bool, field, value, "true or false")
        return bool(value)

    def bias(self) -> str:
        value = self._raw.get("bias") or "none"
        self._require(value in ("none", "all", "lora_only"), "bias", value, "none, all or lora_only")
        return str(value)

    def modules(self, field: str, value: Any, needed: bool = True) -> list[str] | str:
        value = value or []
        valid = isinstance(value, str) or (_is_list_of(str, value) and all(value))
        self._require(valid and (bool(value) or not needed), field, value, "a list of names or a regular expression")
        if isinstance(value, str):
            return value if value == "all-linear" else self._expression(huggingface_pattern(value))
        return [self._expression(huggingface_pattern(name)) for name in value]

    def expressions(self, field: str) -> list[str]:
        value = self._raw.get(field) or []
        value = [value] if isinstance(value, str) else value
        self._require(_is_list_of(str, value) and all(value), field, value, "a list of names")
        return [self._expression(name) for name in value]

    def layers(self, value: Any) -> list[int] | None:
        self._require(value is None or _is_list_of(int, value), "layers_to_transform", value, "a list of layer numbers")
        return value  # type: ignore[no-any-return]

    def patterns(self, field: str) -> list[tuple[str, Any]]:
        value = self._raw.get(field) or {}
        self._require(isinstance(value, dict), field, value, "an object of patterns and values")
        return [(self._expression(huggingface_pattern(key), _suffix_expression), entry) for key, entry in value.items()]

    def _expression(self, text: str, wrap: Any = str) -> str:
        branches = [text] if "(" in text else text.split("|")
        repetitions = max(len(_REPETITION.findall(branch)) for branch in branches)
        if len(text) > _MAX_PATTERN_LENGTH or _REPEATED_GROUP.search(text) or repetitions > _MAX_REPETITIONS:
            raise AdapterError(f"{self._path}: {_shown(text)} could take too long to match: name the modules instead")
        try:
            re.compile(wrap(text))
        except (re.error, OverflowError, RecursionError) as error:
            raise AdapterError(f"{self._path}: {_shown(text)} is no regular expression: {error}") from error
        return text


def _matches(target: list[str] | str, module: str) -> bool:
    if target == "all-linear":
        return module.rsplit(".", 1)[-1] not in output_modules()
    if isinstance(target, list):
        return any(is_suffix(name, module) for name in target)
    return re.fullmatch(target, module) is not None


def is_suffix(name: str, module: str) -> bool:
    """Whether the name ends the module's, or (MindFormers writes `.*wq` into lists) matches it as a pattern."""
    if module == name or module.endswith(f".{name}"):
        return True
    return name.startswith(".*") and re.fullmatch(name, module) is not None


def _by_pattern(pattern: dict[str, Any], module: str, default: float) -> float:
    """The first entry whose key, a regular expression, matches the end of the module's name; as PEFT does."""
    for key, value in pattern.items():
        if re.fullmatch(_suffix_expression(key), module):
            return value  # type: ignore[no-any-return]
    return default


def _suffix_expression(key: str) -> str:
    return rf"(.*\.)?({key})"


def _is_list_of(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
