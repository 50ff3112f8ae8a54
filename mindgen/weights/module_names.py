"""What a project calls the modules of a network that has other names here."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ModuleNames:
    """Between a project's names of modules and those of the network; what neither knows stays as it is.

    Attributes:
        layers, own_layers: how the names of modules in layers begin, the project's and the network's.
        tables: the network's names of modules outside of layers, by the project's.
        modules: the network's names of the modules of a layer, by the project's.
        also_read: the same of names that the project has for some of them besides.
        also_written: the project's names of modules that the network has, and the project only as a part of another.
    """

    layers: str
    own_layers: str
    tables: Mapping[str, str]
    modules: Mapping[str, str]
    also_read: Mapping[str, str] = field(default_factory=dict)
    also_written: Mapping[str, str] = field(default_factory=dict)

    def in_layer(self, module: str) -> tuple[str, str] | None:
        """The number of the layer, and the project's name within it; None outside of layers."""
        return _in_layer(module, self.layers)

    def own(self, module: str) -> str:
        """The network's name."""
        layer = self.in_layer(module)
        if layer is None:
            return self.tables.get(module, module)
        number, name = layer
        return f"{self.own_layers}{number}.{self.modules.get(name) or self.also_read.get(name, name)}"

    def their(self, module: str) -> str:
        """The project's name."""
        layer = _in_layer(module, self.own_layers)
        if layer is None:
            return _reversed(self.tables).get(module, module)
        number, name = layer
        return f"{self.layers}{number}.{_reversed(self.modules).get(name) or self.also_written.get(name, name)}"


def _in_layer(module: str, layers: str) -> tuple[str, str] | None:
    number, _, name = module.removeprefix(layers).partition(".")
    return (number, name) if module.startswith(layers) and number.isdigit() and name else None


def _reversed(names: Mapping[str, str]) -> dict[str, str]:
    return {ours: theirs for theirs, ours in names.items()}
