"""/playground/live and /playground/overview: what the page shows of the server, beside what /v1/models says."""

from mindgen.server.protocol.body import ResponseBody

MOST_NAMED = 8  # models of the batch


class ReplicaState(ResponseBody):
    """
    Attributes:
        running: sequences in the batch.
        waiting: requests that have not run yet.
        kv_blocks: of the KV cache, in all.
        prompt_tokens, generated_tokens: since the start.
    """

    running: int
    waiting: int
    kv_blocks: int
    kv_blocks_used: int
    prompt_tokens: int
    generated_tokens: int


class ModelShare(ResponseBody):
    """Outputs of a model that are computed or wait; `name` is None for all models that are not named."""

    name: str | None
    outputs: int


class LiveState(ResponseBody):
    """A moment.

    Attributes:
        batch: by model, the busiest first.
        refused: requests, for want of room, since the start.
    """

    replicas: list[ReplicaState]
    batch: list[ModelShare]
    refused: int


class AdapterState(ResponseBody):
    """
    Attributes:
        digest: None for an adapter that nobody has used, and whose files have not been read yet.
        is_resident: whether it is in the network's memory.
        requests, tokens: since the start.
        open: requests that have it now.
    """

    name: str
    digest: str | None
    is_resident: bool
    requests: int
    tokens: int
    open: int


class Overview(ResponseBody):
    """The base model and its adapters.

    Attributes:
        can_change: whether the server takes an admin's key at all.
    """

    base: str
    digest: str
    max_model_len: int
    version: str
    can_change: bool
    adapters: list[AdapterState]
