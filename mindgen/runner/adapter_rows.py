"""What the network is told of adapters with more than LoRA on linears: DoRA, biases, LoRA on embedding and head."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mindgen.adapters.slot_layout import SlotLayout
from mindgen.layers.adapted import AdaptedLayer
from mindgen.parallel.layout import Slice
from mindgen.runner.batch import Batch


class AdapterInputs(NamedTuple):
    """Which inputs a graph has besides the batch's own.

    Attributes:
        num_levels: of adapter slots; 0 for a graph without adapters.
        has_slots: whether it is told the slot of each row.
        table_levels, head_levels: of them those in which embedding and head have LoRA: all or none.
    """

    num_levels: int = 0
    has_slots: bool = False
    table_levels: int = 0
    head_levels: int = 0


def adapter_inputs(batch: Batch, is_plain: bool, tables: Sequence[AdaptedLayer | None]) -> AdapterInputs:
    """Those that the batch needs: only adapters with more than LoRA on linears bring the further ones.

    Args:
        is_plain: whether the batch has none of these.
        tables: embedding and head, None where they are in another process.
    """
    num_levels = len(batch.segment_ends)
    if is_plain:
        return AdapterInputs(num_levels)
    table_levels, head_levels = (num_levels if table is not None and table.has_lora else 0 for table in tables)
    return AdapterInputs(num_levels, True, table_levels, head_levels)


def adapter_arrays(batch: Batch, layout: SlotLayout, inputs: AdapterInputs, vocabulary: Slice) -> list[np.ndarray]:
    """In the order of StepGraph: segment_ends, slots, output_slots, table_rows, output_ends.

    Args:
        vocabulary: the tokens that the embedding's tables have; the row of any other is -1.
    """
    arrays = [*batch.segment_ends]
    if not inputs.has_slots:
        return arrays
    slots = np.repeat(np.array(batch.slots, np.int32), batch.step.q_seq_lens)  # (T,)
    output_slots = slots[batch.step.output_rows]  # (R,)
    arrays += [slots, output_slots]
    levels = layout.levels()
    places = batch.step.inputs - np.int32(vocabulary.start)
    is_here = (places >= 0) & (batch.step.inputs < vocabulary.stop)
    for level in levels[: inputs.table_levels]:
        # Rows of slots beyond the level are not looked at, but must lie in its table.
        rows = np.where(slots < level.num_slots, slots * np.int32(vocabulary.size) + places, np.int32(0))
        arrays.append(np.where(is_here, rows, np.int32(-1)))
    ends = np.cumsum(np.bincount(output_slots, minlength=layout.num_slots))
    arrays += [ends[: level.num_slots].astype(np.int64) for level in levels[: inputs.head_levels]]
    return arrays
