"""MindFormers' fused weights (qkv_concat: True) taken apart again: queries, keys and values of one tensor, gate and up
of another.

Their rows lie in one of two orders under the same names. "plain" is [q; k; v] and [gate; up]. Since December 2024 its
converter writes "grouped", as Megatron has it: of each KV head its query heads, its key and its value, and gate and up
row by row in turns (qkv_concat_hf2mg and ffn_concat_hf2mg of its utils/convert_utils.py). Biases are always plain.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mindgen.errors import CheckpointError, ModelError
from mindgen.system.json_file import read_json_object
from mindgen.weights.architecture import read_model_config
from mindgen.weights.config_file import CONFIG_FILE, FileRecord, read_record
from mindgen.weights.made_tensor import cut_rows, order_rows
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig

LAYOUT_KEY = "qkv_concat_layout"
Layout = Literal["plain", "grouped"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_FUSED = re.compile(r"(?P<parent>.*)\.(?P<module>w_qkv|w_gate_hidden)\.(?P<kind>weight|bias)")
_PARTS = {"w_qkv": ("wq", "wk", "wv"), "w_gate_hidden": ("w1", "w3")}
_NUM_CHECKED, _NUM_ROWS = 8, 32  # tensors of a kind, and rows of a head: what lies otherwise does so everywhere
_NUM_PAIRS = 1024
_CLEARLY = 20.0  # nats, which rows without any structure reach once in ten thousand times


class FusedFile(FileRecord):
    """What config.json says of them."""

    qkv_concat_layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class FusedRows:
    """A fused tensor's rows, in blocks: of a head's size, or of one.

    Attributes:
        parts: which part each block belongs to.
    """

    block_size: int
    parts: np.ndarray

    @classmethod
    def of(cls, module: str, layout: str, config: ModelConfig) -> "FusedRows":
        """Those of w_qkv or w_gate_hidden."""
        if module == "w_gate_hidden":
            gate_and_up = np.arange(2)
            inner = config.intermediate_size
            return cls(1, np.tile(gate_and_up, inner) if layout == "grouped" else np.repeat(gate_and_up, inner))
        keys, queries_of_key = config.num_kv_heads, config.num_heads // config.num_kv_heads
        if layout == "grouped":
            return cls(config.head_size, np.tile(np.repeat(np.arange(3), [queries_of_key, 1, 1]), keys))
        return cls(config.head_size, np.repeat(np.arange(3), [config.num_heads, keys, keys]))

    def take(self, tensor: MappedTensor, part: int) -> MappedTensor:
        """A part of the tensor: a view where it lies in one piece."""
        blocks = np.flatnonzero(self.parts == part)
        if blocks[-1] - blocks[0] == len(blocks) - 1:
            return cut_rows(tensor, int(blocks[0]) * self.block_size, int(blocks[-1] + 1) * self.block_size)
        rows = blocks[:, None] * self.block_size + np.arange(self.block_size)  # (blocks, block_size)
        return order_rows(tensor, rows.reshape(-1))


def separate_fused(model: Path, tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """The tensors, fused ones as their parts, under the names that MindFormers has for those; checked by their values.

    Args:
        model: the folder of the config.json, whose qkv_concat_layout says in which order the rows lie.

    Raises:
        ModelError: config.json does not say it, or cannot be read.
        CheckpointError: a tensor has another shape; or the rows clearly lie in the other order.
    """
    first = next(filter(is_fused, tensors), None)
    if first is None:
        return tensors
    return separate_ordered(model, tensors, _chosen(model, first), read_model_config(model))


def is_fused(name: str) -> bool:
    """Whether it is the name of a fused weight."""
    return _FUSED.fullmatch(name) is not None


def separate_ordered(
    source: Path | str, tensors: dict[str, MappedTensor], layout: Layout, config: ModelConfig
) -> dict[str, MappedTensor]:
    """As `separate_fused`, where the order of the rows is known.

    Args:
        source: of the tensors, which errors name.
    """
    fused = {name: match for name in tensors if (match := _FUSED.fullmatch(name))}
    rows = {module: FusedRows.of(module, layout, config) for module in _PARTS}
    for name, match in fused.items():
        expected = len(rows[match["module"]].parts) * rows[match["module"]].block_size
        if tensors[name].shape[:1] != (expected,):
            raise CheckpointError(f"{name} has shape {tensors[name].shape}, config.json asks for {expected} rows")
    if layout == "grouped" and config.num_heads * config.head_size != config.hidden_size:
        raise CheckpointError(
            f"{source}: MindFormers' converter orders the rows of w_qkv wrongly where the queries "
            f"({config.num_heads} heads of {config.head_size}) are not as wide as the model ({config.hidden_size}): "
            "convert it again with qkv_concat: False"
        )
    _check_values(source, {name: tensors[name] for name in fused}, layout, config)
    separate: dict[str, MappedTensor] = {}
    for name, tensor in tensors.items():
        if name not in fused:
            separate[name] = tensor
            continue
        match = fused[name]
        module, kind = match["module"], match["kind"]
        own = rows[module] if kind == "weight" else FusedRows.of(module, "plain", config)
        for part, part_name in enumerate(_PARTS[module]):
            separate[f"{match['parent']}.{part_name}.{kind}"] = own.take(tensor, part)
    return separate


def _chosen(model: Path, name: str) -> Layout:
    path = model / CONFIG_FILE
    layout = read_record(FusedFile, path, read_json_object(path, ModelError)).qkv_concat_layout
    if layout is None:
        raise ModelError(
            f"{name} is one of MindFormers' fused weights (qkv_concat: True), whose rows lie in one of two orders that "
            f"the file does not tell: say {LAYOUT_KEY}: plain (converted before December 2024) or grouped (since "
            f"then), beside qkv_concat in the YAML, or in {path}"
        )
    return layout


def _check_values(source: Path | str, fused: dict[str, MappedTensor], chosen: Layout, config: ModelConfig) -> None:
    """Raises CheckpointError where another order than the chosen one explains the rows' norms clearly better.

    In a trained model the parts differ in their norms, and the order that puts rows of like norms together is the
    right one. Nothing tells the orders of random rows apart, and then what was chosen counts.
    """
    likelihoods = dict.fromkeys(LAYOUTS, 0.0)
    for module in _PARTS:
        weights = [tensor for name, tensor in sorted(fused.items()) if name.endswith(f".{module}.weight")]
        for place in sorted(set(np.linspace(0, len(weights) - 1, min(len(weights), _NUM_CHECKED)).astype(int))):
            for layout in LAYOUTS:
                likelihoods[layout] += _log_likelihood(weights[place], FusedRows.of(module, layout, config))
    best = max(LAYOUTS, key=lambda layout: likelihoods[layout])
    if likelihoods[best] - likelihoods[chosen] > _CLEARLY:
        raise CheckpointError(
            f"{source}: {LAYOUT_KEY} says {chosen}, but the rows of w_qkv and w_gate_hidden lie as {best} has them "
            f"(by their norms, with a log likelihood ratio of {likelihoods[best] - likelihoods[chosen]:.0f}): set "
            f"{LAYOUT_KEY}: {best}"
        )


def _log_likelihood(tensor: MappedTensor, rows: FusedRows) -> float:
    """Of the blocks' logarithmic norms, if each part has a mean of its own, above that with one mean for all."""
    blocks = np.arange(len(rows.parts))
    if rows.block_size == 1:  # neighbours, for one order has them in turns
        pairs = np.linspace(0, len(blocks) // 2 - 1, min(len(blocks) // 2, _NUM_PAIRS)).astype(int)
        blocks = (2 * pairs[:, None] + np.arange(2)).reshape(-1)
    step = max(1, rows.block_size // _NUM_ROWS)
    sampled = blocks[:, None] * rows.block_size + np.arange(0, rows.block_size, step)  # (blocks, rows of each)
    values = MappedTensor(tensor.dtype, tensor.data[sampled.reshape(-1)]).as_dtype("float32")
    squares = np.square(values, dtype=np.float32).sum(1).reshape(sampled.shape)
    norms = np.log(squares + np.finfo(np.float32).tiny).mean(1)
    total = np.square(norms - norms.mean()).sum()
    groups = [norms[rows.parts[blocks] == part] for part in np.unique(rows.parts)]
    within = sum(np.square(group - group.mean()).sum() for group in groups)
    if not np.isfinite(total) or total <= 0:
        return 0.0
    return float(-len(norms) / 2 * np.log(max(within / total, np.finfo(np.float32).eps)))
