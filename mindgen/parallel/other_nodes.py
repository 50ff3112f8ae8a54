"""The other machines of several, as node 0 sees them."""

import weakref

from mindgen.parallel.meeting import Identity, await_nodes
from mindgen.parallel.node_connection import NodeConnection, WorkerLine
from mindgen.parallel.node_placement import NodePlacement


class OtherNodes:
    """All of them, once they have come.

    Attributes:
        lines: to their workers.
        sockets: descriptors of the connections for the ranks' data by node, -1 for this one.

    Raises:
        LaunchError: one does not come.
    """

    def __init__(self, placement: NodePlacement, identity: Identity) -> None:
        self.placement = placement
        self._peers = await_nodes(placement, identity)
        self._connections = [
            NodeConnection(channel, node, self._peers.addresses[node], placement.workers(node))
            for node, channel in sorted(self._peers.channels.items())
        ]
        self.lines: dict[int, WorkerLine] = {
            worker: line for connection in self._connections for worker, line in connection.lines.items()
        }
        self.sockets = self._peers.descriptors(placement.num_nodes) if placement.spans else ()
        self._end = weakref.finalize(self, _end, self._connections, 0, "")

    def close_sockets(self) -> None:
        """Once the group has them."""
        self._peers.close_sockets()

    def close(self, exit_code: int = 0, reason: str = "") -> None:
        """Tells them how it has ended, unless they were told."""
        if self._end.detach() is not None:
            _end(self._connections, exit_code, reason)
            self._peers.close_sockets()


def _end(connections: list[NodeConnection], exit_code: int, reason: str) -> None:
    for connection in connections:
        connection.close(exit_code, reason)
