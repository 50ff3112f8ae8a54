"""What the server reads before it loads a model, so that mistakes show at once."""

from collections.abc import Callable
from dataclasses import dataclass

from mindgen.server.adapters.roots import Roots
from mindgen.server.adapters.watcher import FOLDER_OPTION
from mindgen.server.config import ServerConfig
from mindgen.server.limits.keys import KeyRing
from mindgen.server.observe.tracing import check_tracing


@dataclass(frozen=True, slots=True)
class Outside:
    """What is read before the model is loaded, and where lines go.

    Attributes:
        say: takes a line for whoever runs the server.
    """

    keys: KeyRing
    roots: Roots
    weight_roots: Roots
    say: Callable[[str], None]


def read_outside(config: ServerConfig, say: Callable[[str], None]) -> Outside:
    """
    Raises:
        ConfigError: a key file, a folder or an address is not as it should be.
    """
    if config.adapter_folder is not None:
        Roots([config.adapter_folder], FOLDER_OPTION)
    if config.trace_endpoint is not None:
        check_tracing(config.trace_endpoint)
    keys = KeyRing.read(config.api_key_file, config.admin_key_file)
    return Outside(keys, Roots(config.adapter_roots), Roots(config.weight_roots, "weight_roots", "path"), say)
