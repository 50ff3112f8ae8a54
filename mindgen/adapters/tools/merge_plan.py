"""What a merge makes of every parameter of the model: checked as a whole before anything is computed or written."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.adapters.formats.peft import Adapter, LoraUpdate
from mindgen.adapters.fused import split_base_weights, split_updates
from mindgen.adapters.loader import find_misfits
from mindgen.errors import AdapterError
from mindgen.kernels import dtypes
from mindgen.weights.architecture import Architecture, names_of
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import warn_of_own_head
from mindgen.weights.network_names import has_own_head, linear_modules
from mindgen.weights.tensor_names import HEAD

_HEAD_WEIGHT = f"{HEAD}.weight"


@dataclass(frozen=True, slots=True)
class MergedParameter:
    """One parameter of the merged model: its base, what is added to it, and its dtype in the base model.

    Attributes:
        addend: of a bias, added times addend_scaling.
        extra_rows: of new tokens, behind the base's rows.
    """

    base: MappedTensor
    dtype: str
    update: LoraUpdate | None = None
    addend: MappedTensor | None = None
    addend_scaling: float = 1.0
    extra_rows: MappedTensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        extra = 0 if self.extra_rows is None else self.extra_rows.shape[0]
        return (self.base.shape[0] + extra, *self.base.shape[1:]) if extra else self.base.shape

    @property
    def is_changed(self) -> bool:
        added = (self.update, self.addend, self.extra_rows)
        return any(part is not None for part in added) or self.base.dtype != self.dtype

    def size(self) -> int:
        itemsize = np.dtype(dtypes.STORAGE[self.dtype]).itemsize if self.is_changed else self.base.data.itemsize
        return math.prod(self.shape) * itemsize


@dataclass(slots=True)
class MergePlan:
    """All parameters by name, and the settings of config.json that change with them.

    Attributes:
        embedding: the name of its weight.
    """

    parameters: dict[str, MergedParameter]
    embedding: str
    config_changes: dict[str, Any] = field(default_factory=dict)
    unties: bool = False
    changes_vocabulary: bool = False
    problems: list[str] = field(default_factory=list)


def plan_merge(model: Path, adapter: Adapter, tensors: dict[str, MappedTensor]) -> MergePlan:
    """The plan, if the adapter fits the model.

    Raises:
        AdapterError: it does not; the message names the first misfit.
    """
    plan = try_merge(model, adapter, tensors)
    if plan.problems:
        raise AdapterError(f"adapter {adapter.folder} and model {model}: {plan.problems[0]}")
    return plan


def try_merge(model: Path, adapter: Adapter, tensors: dict[str, MappedTensor]) -> MergePlan:
    """The plan with all problems that it met, whatever their number; model is the folder.

    Raises:
        ModelError: its config.json is damaged.
    """
    architecture, tied = names_of(model)
    tensors, adapter = architecture.with_own_names(tensors), _as_stored(adapter, architecture)
    embedding = architecture.embedding
    parameters = {name: MergedParameter(tensor, tensor.dtype) for name, tensor in tensors.items()}
    plan = MergePlan(parameters, f"{embedding}.weight")
    if tied and has_own_head(tensors):
        warn_of_own_head(model)
        tied = False
        plan.config_changes["tie_word_embeddings"] = False
    if tied and _HEAD_WEIGHT in parameters and plan.embedding not in parameters:
        parameters[plan.embedding] = parameters[_HEAD_WEIGHT]  # some tools save a tied table under this name
    if tied:
        parameters.pop(_HEAD_WEIGHT, None)  # some tools save it as well
    _replace_base_weights(plan, adapter, tied, architecture)
    if tied and plan.embedding in parameters and _needs_a_head_of_its_own(adapter, embedding):
        parameters[_HEAD_WEIGHT] = parameters[plan.embedding]
        plan.unties = True
        plan.config_changes["tie_word_embeddings"] = False
    for name, tensor in adapter.saved_modules.items():
        _replace(plan, name, tensor)
    for module, rows in adapter.extra_rows.items():
        _extend(plan, f"{module}.weight", rows)
    _apply_updates(plan, adapter, tied, architecture)
    _settle_vocabulary(plan, adapter, tensors)
    for name, parameter in parameters.items():
        if parameter.is_changed and parameter.dtype not in dtypes.STORAGE:
            plan.problems.append(f"{name} is {parameter.dtype} in the model; only {', '.join(dtypes.STORAGE)} merge")
    return plan


def _as_stored(adapter: Adapter, architecture: Architecture) -> Adapter:
    """The adapter under the names that the model's checkpoints have for their modules."""
    weights = {name.rpartition("."): tensor for name, tensor in adapter.base_weights.items()}
    return replace(
        adapter,
        updates={architecture.their_module(module): update for module, update in adapter.updates.items()},
        base_weights={
            f"{architecture.their_module(module)}.{kind}": tensor for (module, _, kind), tensor in weights.items()
        },
    )


def _replace_base_weights(plan: MergePlan, adapter: Adapter, tied: bool, architecture: Architecture) -> None:
    """Parameters that the base model itself gets: a tied head follows its embedding."""
    try:
        replacements = split_base_weights("fused module", adapter.base_weights, _modules(plan, tied, architecture))
    except AdapterError as error:
        plan.problems.append(str(error))
        return
    if tied and _HEAD_WEIGHT in replacements:
        head = replacements.pop(_HEAD_WEIGHT)
        other = replacements.setdefault(plan.embedding, head)
        if other.shape != head.shape or not np.array_equal(other.data, head.data):
            plan.problems.append("the model ties its head to the embedding, but the adapter has different ones")
    for name, tensor in replacements.items():
        _replace(plan, name, tensor)


def _replace(plan: MergePlan, name: str, tensor: MappedTensor) -> None:
    old = plan.parameters.get(name)
    if old is None:
        plan.problems.append(f"the adapter replaces {name}, which the model does not have")
        return
    is_table = name in (plan.embedding, _HEAD_WEIGHT)
    if tensor.shape != old.shape and not (is_table and tensor.shape[1:] == old.shape[1:]):
        plan.problems.append(f"{name} is {old.shape} in the model, but {tensor.shape} in the adapter")
        return
    plan.parameters[name] = replace(old, base=tensor)


def _extend(plan: MergePlan, name: str, rows: MappedTensor) -> None:
    old = plan.parameters.get(name)
    if old is None or rows.shape[1:] != old.base.shape[1:]:
        plan.problems.append(f"the adapter has rows of shape {rows.shape} for {name}, which the model cannot take")
        return
    plan.parameters[name] = replace(old, extra_rows=rows)


def _needs_a_head_of_its_own(adapter: Adapter, embedding: str) -> bool:
    """Whether the adapter changes only one of a tied embedding and head."""
    modules = {*adapter.updates, *adapter.extra_rows, *(name.rpartition(".")[0] for name in adapter.saved_modules)}
    return bool(modules & {embedding, HEAD})


def _apply_updates(plan: MergePlan, adapter: Adapter, tied: bool, architecture: Architecture) -> None:
    modules = _modules(plan, tied, architecture)
    try:
        updates = split_updates("fused module", adapter.updates, modules)
    except AdapterError as error:
        plan.problems.append(str(error))
        return
    misfits = find_misfits(adapter, updates, modules)
    plan.problems += misfits
    for module, update in updates.items():
        name = f"{module}.weight"
        if misfits or name not in plan.parameters:
            continue
        is_stored_by_inputs = update.is_embedding or architecture.is_stored_by_inputs(name)
        of_weight = replace(update, bias=None, is_embedding=is_stored_by_inputs)
        plan.parameters[name] = replace(plan.parameters[name], update=of_weight)
        if update.bias is not None:
            bias = plan.parameters.get(f"{module}.bias")
            if bias is None or bias.shape != update.bias.shape:
                plan.problems.append(f"{module} has a lora_B.bias, but the model has no bias of its shape there")
                continue
            plan.parameters[f"{module}.bias"] = replace(bias, addend=update.bias, addend_scaling=update.scaling)


def _modules(plan: MergePlan, tied: bool, architecture: Architecture) -> dict[str, tuple[int, int]]:
    shapes = {name: parameter.shape for name, parameter in plan.parameters.items()}
    return linear_modules(shapes, tied, architecture)


def _settle_vocabulary(plan: MergePlan, adapter: Adapter, tensors: dict[str, MappedTensor]) -> None:
    tables = [plan.parameters[name].shape[0] for name in (plan.embedding, _HEAD_WEIGHT) if name in plan.parameters]
    if len(set(tables)) > 1:
        plan.problems.append(f"the embedding would have {tables[0]} rows, the head {tables[1]}")
    if adapter.added_tokens and tables and max(adapter.added_tokens.values()) >= tables[0]:
        plan.problems.append(f"added_tokens.json goes up to {max(adapter.added_tokens.values())} of {tables[0]} rows")
    if plan.embedding in tensors and tables and tables[0] != tensors[plan.embedding].shape[0]:
        plan.config_changes["vocab_size"] = tables[0]
    plan.changes_vocabulary = "vocab_size" in plan.config_changes or bool(adapter.added_tokens)
