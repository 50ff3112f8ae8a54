"""Where the tensors of a checkpoint lie: on which ranks, and how much of each on one."""

from dataclasses import dataclass
from typing import TypeAlias

from mindgen.errors import CheckpointError
from mindgen.parallel.layout import Axis, TensorLayout
from mindgen.weights.strategy_file import ParameterStrategy, Strategy

Shapes: TypeAlias = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Placement:
    """The layout of each tensor, for each pipeline stage; the first ranks are the first stage's, and so on.

    Attributes:
        ranks_per_stage: the ranks that each layout is of.
    """

    ranks_per_stage: int
    stages: tuple[dict[str, TensorLayout], ...]

    @property
    def num_ranks(self) -> int:
        return self.ranks_per_stage * len(self.stages)

    @property
    def shapes(self) -> Shapes:
        """The whole shape of every tensor."""
        return {name: layout.shape for stage in self.stages for name, layout in stage.items()}

    def padded(self) -> Shapes:
        """The whole shapes of those tensors whose slices do not tell them."""
        return {
            name: layout.shape
            for stage in self.stages
            for name, layout in stage.items()
            if any(axis.is_padded for axis in layout.axes)
        }

    def of_rank(self, rank: int) -> tuple[dict[str, TensorLayout], int]:
        """The layouts of a rank's stage, and its number within the stage."""
        stage, local_rank = divmod(rank, self.ranks_per_stage)
        return self.stages[stage], local_rank

    def strategy(self) -> Strategy:
        """In MindSpore's notation.

        Raises:
            CheckpointError: a tensor is padded in its middle, which MindSpore cannot express.
        """
        for stage in self.stages:
            for name, layout in stage.items():
                if any(len(axis.split_by) > 1 and axis.is_padded for axis in layout.axes):
                    raise CheckpointError(
                        f"{name!r} {layout.shape} does not divide by {layout.strategy}, and no strategy file can "
                        f"say where it is padded: choose another number of ranks"
                    )
        return Strategy(
            tuple(
                {name: ParameterStrategy(layout.device_matrix, layout.tensor_map) for name, layout in stage.items()}
                for stage in self.stages
            )
        )


def whole_placement(shapes: Shapes) -> Placement:
    """All of it on one rank."""
    return Placement(1, ({name: whole_layout(shape, 1) for name, shape in shapes.items()},))


def whole_layout(shape: tuple[int, ...], num_ranks: int) -> TensorLayout:
    """The whole tensor on every rank."""
    return TensorLayout(num_ranks, tuple(Axis(size) for size in shape))


def declared_placement(shapes: Shapes, stages: list[dict[str, TensorLayout]], num_ranks: int) -> Placement:
    """As a network's layers declare it; what they do not name lies whole on every rank of the first stage."""
    named = set().union(*stages)
    rest = {name: whole_layout(shape, num_ranks) for name, shape in shapes.items() if name not in named}
    first, *others = [{name: layouts[name] for name in shapes if name in layouts} for layouts in stages]
    return Placement(num_ranks, (first | rest, *others))


def strategy_placement(shapes: Shapes, strategy: Strategy) -> Placement:
    """As a strategy says; what it does not name lies whole on every rank of the first stage that could have it.

    Raises:
        CheckpointError: it is of other tensors.
    """
    named = set().union(*strategy.stages)
    if not named & shapes.keys():
        raise CheckpointError(
            f"the strategy names none of the checkpoint's {len(shapes)} tensors: it has {min(named)!r} for instance, "
            f"the checkpoint {min(shapes)!r}"
        )
    stages = []
    for index, stage in enumerate(strategy.stages):
        layouts = {}
        for name, shape in shapes.items():
            if name in stage:
                layouts[name] = _named(name, stage[name], shape)
            elif name not in named and index == 0:
                layouts[name] = whole_layout(shape, strategy.ranks_per_stage)
        stages.append(layouts)
    return Placement(strategy.ranks_per_stage, tuple(stages))


def _named(name: str, strategy: ParameterStrategy, shape: tuple[int, ...]) -> TensorLayout:
    try:
        return strategy.layout(shape)
    except CheckpointError as error:
        raise CheckpointError(f"{name!r}: {error}") from error
