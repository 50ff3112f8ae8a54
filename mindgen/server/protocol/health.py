"""/health."""

from typing import Literal

from mindgen.server.protocol.body import ResponseBody


class LostReplica(ResponseBody):
    """
    Attributes:
        replica: its number.
        reason: why it has ended.
    """

    replica: int
    reason: str


class HealthState(ResponseBody):
    """
    Attributes:
        status: "degraded" where some replicas have ended, and the others serve on.
        replicas: of the model, in all.
    """

    status: Literal["ok", "degraded"]
    replicas: int
    lost: list[LostReplica]
