"""A name means one model."""

import pytest

from mindgen.errors import ConfigError
from mindgen.server.adapters.catalog import Catalog


@pytest.mark.parametrize("name", ["demo", "base", ""])
def test_names_that_no_adapter_can_have(name):
    with pytest.raises(ConfigError, match="rename it"):
        Catalog("demo", ["A1", name])
