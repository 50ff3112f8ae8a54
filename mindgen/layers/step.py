"""What every layer needs to know of a step besides its hidden states."""

from typing import NamedTuple

from mindspore import Tensor


class StepInputs(NamedTuple):
    """The batch as the layers see it; lengths and tables are int32, segment_ends int64.

    Attributes:
        cos, sin: (T, D) for each token, or the full tables when whole_prompts.
        slot_mapping: (T,) where each token's key and value go: block * block_size + offset.
        block_tables: (B, n) the blocks of each sequence.
        context_lens: (B,) tokens of each sequence up to and with this step's.
        q_seq_lens: (B,) tokens of each sequence in this step.
        q_seq_ends: (B,) their cumulative sums.
        segment_ends: (E,) rows up to here belong to adapter slots up to e; None for a batch without adapters.
        whole_prompts: every sequence starts in this step, so attention needs no cache. Fixed when compiling.
    """

    cos: Tensor
    sin: Tensor
    slot_mapping: Tensor
    block_tables: Tensor
    context_lens: Tensor
    q_seq_lens: Tensor
    q_seq_ends: Tensor
    segment_ends: Tensor | None
    whole_prompts: bool
