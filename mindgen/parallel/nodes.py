"""The other machines of several, as node 0 sees them."""

import weakref

from mindgen.parallel.meeting import Identity, await_nodes
from mindgen.parallel.node_link import NodeLine, NodeLink
from mindgen.parallel.node_plan import NodePlan


class Nodes:
    """All of them, once they have come.

    Attributes:
        lines: to their workers.
        sockets: descriptors of the connections for the ranks' data by node, -1 for this one.

    Raises:
        LaunchError: one does not come.
    """

    def __init__(self, plan: NodePlan, identity: Identity) -> None:
        self.plan = plan
        self._peers = await_nodes(plan, identity)
        self._links = [
            NodeLink(channel, node, self._peers.addresses[node], plan.workers(node))
            for node, channel in sorted(self._peers.channels.items())
        ]
        self.lines: dict[int, NodeLine] = {worker: line for link in self._links for worker, line in link.lines.items()}
        self.sockets = self._peers.descriptors(plan.num_nodes) if plan.spans else ()
        self._end = weakref.finalize(self, _end, self._links, 0, "")

    def close_sockets(self) -> None:
        """Once the group has them."""
        self._peers.close_sockets()

    def close(self, exit_code: int = 0, reason: str = "") -> None:
        """Tells them how it has ended, unless they were told."""
        if self._end.detach() is not None:
            _end(self._links, exit_code, reason)
            self._peers.close_sockets()


def _end(links: list[NodeLink], exit_code: int, reason: str) -> None:
    for link in links:
        link.close(exit_code, reason)
