"""How Ray Serve finds the replica of a place."""

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class PlaceRouter(RequestRouter):
    """The first argument of a call is a place; replicas have theirs by the order of their names."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Of one that is gone, the next one in its place."""
        ordered = sorted(candidate_replicas, key=lambda replica: replica.replica_id.unique_id)
        if pending_request is None or not ordered:
            return [ordered]
        pending_request.routing_context.should_backoff = True  # or Ray would look again at once while none has room
        place = pending_request.args[0] % len(ordered)
        return [[each] for each in ordered[place:] + ordered[:place]]
