"""Which ranks and replicas lie on which machine (node), where there are several."""

from dataclasses import dataclass

from mindgen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NodePlacement:
    """Ranks, ordered by replica first, divided evenly and in their order among the nodes.

    Attributes:
        address: the master's, node 0's.
        seconds: that nodes wait for each other at the start.

    Raises:
        ConfigError: they do not divide, or several replicas would lie across nodes.
    """

    num_nodes: int
    node: int
    num_replicas: int
    ranks_per_replica: int
    address: tuple[str, int]
    seconds: float

    def __post_init__(self) -> None:
        ranks, rest = divmod(self.num_replicas * self.ranks_per_replica, self.num_nodes)
        if rest:
            raise ConfigError(
                f"{self.num_replicas * self.ranks_per_replica} ranks ({self.num_replicas} replicas of "
                f"{self.ranks_per_replica}) do not divide among {self.num_nodes} nodes: change nnodes or the sizes"
            )
        if self.num_replicas > 1 and ranks % self.ranks_per_replica:
            replica = ranks // self.ranks_per_replica
            first, last = (
                rank // ranks for rank in (replica * self.ranks_per_replica, (replica + 1) * self.ranks_per_replica - 1)
            )
            raise ConfigError(
                f"replica {replica} would lie on nodes {first} to {last}: of several replicas each must be on one "
                f"node, whose {ranks} ranks must be a multiple of the replica's {self.ranks_per_replica}"
            )

    @property
    def ranks_per_node(self) -> int:
        return self.num_replicas * self.ranks_per_replica // self.num_nodes

    @property
    def spans(self) -> bool:
        """Whether the only replica lies on all nodes; else each has replicas of its own."""
        return self.ranks_per_replica > self.ranks_per_node

    def workers(self, node: int) -> range:
        """Ranks of the replica that lies on all nodes, or replicas: those on a node."""
        count = self.ranks_per_node if self.spans else self.ranks_per_node // self.ranks_per_replica
        return range(node * count, (node + 1) * count)

    @property
    def name(self) -> str:
        return f"node {self.node} of {self.num_nodes}"
