"""A name means one model."""

import pytest

from mindgen.errors import ConfigError
from mindgen.server.adapters.catalog import Catalog

REFUSED = [
    "demo", "base", "", "other", "x\ny", "x\0", "\ud800", "   ", " x", "x\t", "A/../B", "./A", "A//B", "/A", "A/", "..",
    "x" * 257,
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_names_that_no_adapter_can_have(name):
    with pytest.raises(ConfigError, match="rename it") as found:
        Catalog("demo", ["A1", name])
    assert len(str(found.value)) < 300


def test_names_that_adapters_can_have():
    names = ["law", "team/law v2", "法律", "x<b>", "..x", "x" * 256, "others", "base/demo"]
    assert [each.name for each in Catalog("demo", names).adapters()] == names
