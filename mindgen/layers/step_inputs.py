"""The tensors of a step, named once: for the batch, for the compiled graph, and for the layers that read them."""

from typing import Generic, NamedTuple, TypeVar

Array = TypeVar("Array")


class StepInputs(NamedTuple, Generic[Array]):
    """What the network is given besides what adapters bring; T tokens of B sequences. int32, but for hidden states.

    MindSpore's compiler takes none of our records apart: a graph gets these as a plain tuple in this order, and whoever
    reads one does so by its place in PLACES.

    Attributes:
        inputs: (T,) token ids; or what the pipeline stage before gives, (T, H).
        context_lens: (B,) tokens of each sequence up to and with this step's.
        q_seq_lens: (B,) tokens of each sequence in this step.
        q_seq_ends: (B,) their cumulative sums.
        positions: (T,) of the tokens in their sequences.
        slot_mapping: (T,) where each token's key and value go: block * block_size + offset.
        block_tables: (B, n) the blocks of each sequence, -1 where it has fewer.
        output_rows: (R,) the tokens whose logits are wanted.
    """

    inputs: Array
    context_lens: Array
    q_seq_lens: Array
    q_seq_ends: Array
    positions: Array
    slot_mapping: Array
    block_tables: Array
    output_rows: Array


NUM_STEP_INPUTS = len(StepInputs._fields)
PLACES: StepInputs[int] = StepInputs(*range(NUM_STEP_INPUTS))
