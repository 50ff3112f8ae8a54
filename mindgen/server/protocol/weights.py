"""New weights, and memory that is given back."""

from typing import Any

from pydantic import Field, RootModel

from mindgen.engine.update_options import BASE, InFlight, UpdateReport
from mindgen.server.protocol.body import RequestBody, ResponseBody
from mindgen.weights.mindformers_fused import Layout


class UpdateWeightsRequest(RequestBody):
    """
    Attributes:
        path: of a checkpoint's or an adapter's folder, below one of the server's roots.
        target: "base", or the name of an adapter, which may be a new one.
        version: of the new weights, above that of the old ones; None is the next one.
        in_flight: what becomes of requests that have begun.
        max_staleness: so many versions may the first token of a request be older than the new weights.
        allow_nan: take tensors of the base model that are not finite.
        expect_change: refuse weights that are the old ones.
        expect_all: refuse a set that leaves out tensors of the base model.
        qkv_concat_layout: in which order the rows of MindFormers' fused weights lie.
        adapter_config: in place of the folder's adapter_config.json.
    """

    path: str
    target: str = Field(default=BASE, min_length=1)
    version: int | None = None
    in_flight: InFlight = "finish"
    max_staleness: int | None = Field(default=None, ge=0)
    allow_nan: bool = False
    expect_change: bool = True
    expect_all: bool = False
    qkv_concat_layout: Layout | None = None
    adapter_config: dict[str, Any] | None = None

    def options(self) -> dict[str, Any]:
        """Those of UpdateOptions that were given."""
        return self.model_dump(exclude_unset=True, exclude={"path", "target", "version"})


class WeightReport(RootModel[UpdateReport], ResponseBody):
    """Where new weights have come to."""


class SleepState(ResponseBody):
    is_sleeping: bool
