"""What the compiler made of a parameter is compared with its declaration."""

import pytest

from mindgen.errors import ModelError
from mindgen.parallel.layout import Axis, Shard
from mindgen.runner.semi_auto import CompiledLayout, check_layouts

SHARD = Shard(4, sliced_by_compiler=True)
DECLARED = {"q_proj.weight": SHARD.layout(SHARD.split(16), Axis(6)), "norm.weight": SHARD.layout(Axis(6))}
COMPILED = {
    "q_proj.weight": CompiledLayout((4,), (0, -1), (4, 6)),
    "norm.weight": CompiledLayout((4,), (-1,), (6,)),
    "cos": CompiledLayout((4,), (-1, -1), (9, 2)),
}


def test_equal():
    check_layouts(DECLARED, COMPILED, SHARD)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("q_proj.weight", CompiledLayout((4,), (-1, -1), (16, 6))),
        ("q_proj.weight", CompiledLayout((4,), (0, -1), (5, 6))),
        ("norm.weight", CompiledLayout((4,), (0,), (6,))),
        ("cos", CompiledLayout((4,), (0, -1), (9, 2))),
        ("q_proj.weight", CompiledLayout((2, 2), (0, -1), (4, 6))),
    ],
)
def test_different(name, layout):
    with pytest.raises(ModelError, match=f"slices 1 parameters otherwise than declared: {name} is CompiledLayout"):
        check_layouts(DECLARED, {**COMPILED, name: layout}, SHARD)
