"""Which model an adapter was trained for, in a file beside it: its name, and some values by which it is known in any
format and dtype."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel as Record
from pydantic import ConfigDict, Field, ValidationError

from mindgen.adapters.base_model import BaseModel
from mindgen.errors import AdapterError
from mindgen.kernels import dtypes
from mindgen.system.json_file import read_json_object
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_files import find_weights

MARK_FILE = "base_model.json"
_NUM_TENSORS, _NUM_VALUES = 3, 8
_RELATIVE, _ABSOLUTE = 0.05, 0.02  # what rounding to other dtypes may change


class BaseMark(Record):
    """base_model.json: the first values of some tensors by name."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str
    values: dict[str, Annotated[list[float], Field(min_length=1, max_length=64)]]


def mark_base(adapter: Path, name: str, model: Path) -> None:
    """Writes down that the adapter was trained for the model in that folder, which users call by this name."""
    tensors = find_weights(model, None, 1).map(0)
    # norms, which every rank has whole
    vectors = sorted(each for each, tensor in tensors.items() if len(tensor.shape) == 1 and each.endswith(".weight"))
    chosen = [vectors[place * (len(vectors) - 1) // (_NUM_TENSORS - 1)] for place in range(_NUM_TENSORS)]
    mark = {"name": name, "values": {each: _values(tensors, each, _NUM_VALUES).tolist() for each in chosen}}
    (adapter / MARK_FILE).write_text(json.dumps(mark, indent=1) + "\n")


def check_base(adapter_id: str, adapter: Path, base: BaseModel) -> None:
    """
    Raises:
        AdapterError: the adapter was trained for another model than this; or its mark is malformed.
    """
    path = adapter / MARK_FILE
    if not path.is_file() or not base.tensors:
        return
    try:
        mark = BaseMark.model_validate(read_json_object(path, AdapterError))
    except ValidationError as error:
        raise AdapterError(f"adapter {adapter_id}: {path} is malformed: {error.errors()[0]['msg']}") from error
    for name, values in mark.values.items():
        if name not in base.tensors and base.modules is not None:
            continue  # another rank's; a model that has no such name has no such modules either
        own = _values(base.tensors, name, len(values)) if name in base.tensors else None
        if own is None or own.shape != (len(values),) or not np.allclose(own, values, _RELATIVE, _ABSOLUTE):
            raise AdapterError(
                f"adapter {adapter_id} was trained for the model {mark.name}, and this is another one ({name} "
                f"{'is not there' if own is None else 'differs'}): use it with --model {mark.name}"
            )


def _values(tensors: Mapping[str, MappedTensor], name: str, count: int) -> np.ndarray:
    rows = tensors[name].rows(0, count)
    return dtypes.to_float32(rows.data, rows.dtype).reshape(-1)[:count]
